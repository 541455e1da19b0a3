"""Keys at venues through GraphQL, tried at local venues by the real ccxt and alpaca-py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import update

from db.accounts.models.credentials import CredentialRow
from db.accounts.permissions import Role
from db.embedded.servers import EmbeddedServers
from plugins.alpaca.key_check import AlpacaKeyCheck
from plugins.ccxt_exchange.key_check import CcxtKeyCheck
from schema.node import global_id
from tests.accounts import FakeUsers
from tests.alpaca_server import AlpacaServer, alpaca_server
from tests.alpaca_server.rest import PAPER_ACCOUNT
from tests.api import settings_over
from tests.exchange_server import Account, ExchangeServer, exchange_server
from tests.people import House, Person, housed

NOW = 1_760_000_000_000
pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY, SECRET = "the-key-of-a-user-1234", "the-secret-of-a-user"
KEYS = {"key": KEY, "secret": SECRET}

CREDENTIAL = (
    "id service name testnet notes keyHint createdAt updatedAt lastCheckedAt version __typename"
)
FAILURE = "... on Failure { code message }"
ADD = f"""mutation ($input: AddCredentialInput!) {{ addCredential(input: $input) {{
    __typename ... on CredentialAdded {{ credential {{ {CREDENTIAL} }} }} {FAILURE}
    ... on InvalidInput {{ field }} ... on TooMany {{ limit }} ... on NameTaken {{ field }} }} }}"""
UPDATE = f"""mutation ($input: UpdateCredentialInput!) {{ updateCredential(input: $input) {{
    __typename ... on CredentialUpdated {{ credential {{ {CREDENTIAL} }} }} {FAILURE}
    ... on CredentialVersionConflict {{ current {{ {CREDENTIAL} }} }}
    ... on CredentialInUse {{ users }} }} }}"""
TEST = f"""mutation ($id: ID!) {{ testCredential(input: {{id: $id}}) {{
    __typename ... on CredentialTested {{ credential {{ {CREDENTIAL} }} permissions }} {FAILURE}
    ... on CredentialRefused {{ service reason }} ... on VenueUnavailable {{ service retryAfter }}
    }} }}"""
DELETE = f"""mutation ($id: ID!, $version: Int) {{
    deleteCredential(input: {{id: $id, version: $version}}) {{
    __typename ... on CredentialDeleted {{ id }} {FAILURE}
    ... on CredentialVersionConflict {{ current {{ {CREDENTIAL} }} }}
    ... on CredentialInUse {{ users }} }} }}"""
ALL = f"{{ credentials {{ {CREDENTIAL} }} }}"
NODE = "query ($id: ID!) { node(id: $id) { id __typename } }"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def exchanges() -> AsyncIterator[ExchangeServer]:
    async with exchange_server(now=NOW) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def alpaca() -> AsyncIterator[AlpacaServer]:
    async with alpaca_server(now=NOW) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(
    embedded: EmbeddedServers, database_url: str, exchanges: ExchangeServer, alpaca: AlpacaServer
) -> AsyncIterator[House]:
    checks = {
        "binance": CcxtKeyCheck("binance", configure=exchanges.configure),
        "alpaca": AlpacaKeyCheck(live=alpaca.url, paper=f"{alpaca.url}/paper"),
    }
    async with housed(settings_over(embedded, database_url), key_checks=checks) as house:
        yield house


@pytest.fixture(autouse=True)
def accounts(exchanges: ExchangeServer, alpaca: AlpacaServer) -> None:
    exchanges.accounts = {KEY: Account(SECRET)}
    alpaca.accounts = {(PAPER_ACCOUNT, (KEY, SECRET)): {"status": "ACTIVE"}}


async def added(person: Person, **others: Any) -> dict[str, Any]:
    """Return a credential that was added just now."""
    given = {"service": "binance", "name": f"n{uuid4().hex}", "keys": KEYS} | others
    result = (await person.ask(ADD, input=given)).data["addCredential"]
    assert result["__typename"] == "CredentialAdded", result
    return result["credential"]


async def test_a_credential_is_shown_by_the_end_of_its_key_alone(house: House) -> None:
    person = await house.person()

    credential = await added(person, name="main", notes="for the bot", testnet=True)
    listed = (await person.ask(ALL)).data["credentials"]

    assert listed == [credential]
    assert credential["keyHint"] == "1234"
    assert (credential["service"], credential["name"]) == ("binance", "main")
    assert (credential["testnet"], credential["notes"]) == (True, "for the bot")
    assert (credential["version"], credential["lastCheckedAt"]) == (1, None)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"service": "nowhere"}, "service"),
        ({"name": " "}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"notes": "x" * 2001}, "notes"),
        ({"keys": {"key": "", "secret": "s"}}, "key"),
        ({"keys": {"key": "k", "secret": "s "}}, "secret"),
        ({"keys": {"key": "k", "secret": "s", "aux": "ü"}}, "aux"),
    ],
)
async def test_what_cannot_be_a_credential_is_named(
    house: House, given: dict[str, Any], field: str
) -> None:
    person = await house.person()

    answer = await person.ask(
        ADD, input={"service": "binance", "name": "main", "keys": KEYS} | given
    )

    result = answer.data["addCredential"]
    assert (result["__typename"], result["field"]) == ("InvalidInput", field)
    assert SECRET not in str(answer.body)


async def test_a_name_is_unique_among_ones_own_at_a_venue(house: House) -> None:
    person, other = await house.person(), await house.person()
    await added(person, name="main")

    again = await person.ask(ADD, input={"service": "binance", "name": "main", "keys": KEYS})

    assert again.data["addCredential"]["__typename"] == "NameTaken"
    await added(person, name="main", service="alpaca")
    await added(other, name="main")


async def test_the_venue_tells_what_a_key_may_do(house: House, exchanges: ExchangeServer) -> None:
    person = await house.person()
    credential = await added(person)
    exchanges.accounts[KEY].said = {"canTrade": True, "canWithdraw": True}

    result = (await person.ask(TEST, id=credential["id"])).data["testCredential"]

    assert result["__typename"] == "CredentialTested"
    assert result["permissions"] == ["READ", "TRADE", "WITHDRAW"]
    assert result["credential"]["lastCheckedAt"] is not None


@pytest.mark.parametrize("paper", [False, True])
async def test_paper_keys_open_the_paper_account(house: House, paper: bool) -> None:
    person = await house.person()
    credential = await added(person, service="alpaca", testnet=paper)

    result = (await person.ask(TEST, id=credential["id"])).data["testCredential"]

    assert result["__typename"] == ("CredentialTested" if paper else "CredentialRefused")


async def test_refused_keys_are_not_an_unreachable_venue(
    house: House, exchanges: ExchangeServer
) -> None:
    person = await house.person()
    credential = await added(person, keys={"key": "unknown", "secret": "unknown"})

    refused = (await person.ask(TEST, id=credential["id"])).data["testCredential"]
    exchanges.faults.refuse(503, on="/account")
    away = (await person.ask(TEST, id=credential["id"])).data["testCredential"]

    assert (refused["__typename"], refused["code"]) == ("CredentialRefused", "CREDENTIAL_REFUSED")
    assert refused["service"] == away["service"] == "binance"
    assert (away["__typename"], away["code"]) == ("VenueUnavailable", "PROVIDER_UNAVAILABLE")


async def test_another_secret_counts_at_once_and_has_to_be_tried(
    house: House, exchanges: ExchangeServer
) -> None:
    person = await house.person()
    credential = await added(person)
    await person.ask(TEST, id=credential["id"])
    exchanges.accounts[KEY].secret = "rotated"

    old = (await person.ask(TEST, id=credential["id"])).data["testCredential"]
    changed = await person.ask(
        UPDATE,
        input={
            "id": credential["id"],
            "version": 1,
            "keys": {"key": KEY, "secret": "rotated"},
        },
    )
    new = (await person.ask(TEST, id=credential["id"])).data["testCredential"]

    assert old["__typename"] == "CredentialRefused"
    updated = changed.data["updateCredential"]["credential"]
    assert (updated["version"], updated["lastCheckedAt"]) == (2, None)
    assert new["__typename"] == "CredentialTested"


async def test_a_change_to_an_old_version_is_refused_with_the_present_one(house: House) -> None:
    person = await house.person()
    credential = await added(person, notes="old")
    change = {"id": credential["id"], "version": 1}
    await person.ask(UPDATE, input=change | {"notes": ""})

    late = await person.ask(UPDATE, input=change | {"name": "late"})

    result = late.data["updateCredential"]
    assert (result["__typename"], result["code"]) == (
        "CredentialVersionConflict",
        "VERSION_CONFLICT",
    )
    current = result["current"]
    assert (current["version"], current["notes"], current["name"]) == (2, None, credential["name"])


async def test_a_credential_in_use_stays(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    person = await house.person()
    credential = await added(person)
    (found,) = await _rows(house, person)
    users = FakeUsers({found: ["order 7", "bot momentum"]})
    monkeypatch.setattr(house.identity, "credential_users", [users])

    deleted = (await person.ask(DELETE, id=credential["id"])).data["deleteCredential"]
    change = {"id": credential["id"], "version": 1}
    moved = await person.ask(UPDATE, input=change | {"testnet": True})
    rekeyed = await person.ask(UPDATE, input=change | {"keys": KEYS})

    assert (deleted["__typename"], deleted["users"]) == (
        "CredentialInUse",
        ["order 7", "bot momentum"],
    )
    for answer in (moved, rekeyed):
        assert answer.data["updateCredential"]["__typename"] == "CredentialInUse"
    assert len((await person.ask(ALL)).data["credentials"]) == 1


async def test_a_deleted_credential_is_gone(house: House) -> None:
    person = await house.person()
    credential = await added(person)

    first = (await person.ask(DELETE, id=credential["id"])).data["deleteCredential"]
    second = (await person.ask(DELETE, id=credential["id"])).data["deleteCredential"]

    assert first == {"__typename": "CredentialDeleted", "id": credential["id"]}
    assert second["__typename"] == "NotFound"
    assert (await person.ask(ALL)).data["credentials"] == []


async def test_what_was_changed_meanwhile_is_shown_and_not_deleted(house: House) -> None:
    person = await house.person()
    credential = await added(person)
    await person.ask(UPDATE, input={"id": credential["id"], "version": 1, "name": "renamed"})

    late = (await person.ask(DELETE, id=credential["id"], version=1)).data["deleteCredential"]
    now = (await person.ask(DELETE, id=credential["id"], version=2)).data["deleteCredential"]

    assert (late["code"], late["current"]["name"]) == ("VERSION_CONFLICT", "renamed")
    assert now["__typename"] == "CredentialDeleted"


async def test_tests_are_counted_one_by_one_however_they_are_asked_for(
    house: House, exchanges: ExchangeServer
) -> None:
    person = await house.person()
    one = (await added(person))["id"]
    aliases = (f"a{n}: testCredential(input: {{id: $id}}) {{ __typename }}" for n in range(11))
    calls = len(exchanges.calls)

    many = await person.ask(f"mutation ($id: ID!) {{ {' '.join(aliases)} }}", id=one)

    assert many.codes == ["RATE_LIMITED"]
    assert many.status == 429
    assert len(exchanges.calls) == calls
    assert (await person.ask(TEST, id=one)).data["testCredential"]["__typename"] == (
        "CredentialTested"
    )


async def test_a_row_that_does_not_open_is_masked_and_found_in_the_log(
    house: House, exchanges: ExchangeServer, caplog: pytest.LogCaptureFixture
) -> None:
    person = await house.person()
    credential = await added(person)
    (row,) = await _rows(house, person)
    async with house.identity.accounts.transaction() as transaction:
        broken = update(CredentialRow).where(CredentialRow.id == row).values(key_id="0" * 16)
        await transaction._connection.execute(broken)
    calls = len(exchanges.calls)

    answer = await person.ask(TEST, id=credential["id"])
    log = await person.ask("{ auditLog(first: 1) { nodes { action result } } }")

    assert answer.codes == ["INTERNAL"]
    assert "0" * 16 not in str(answer.body)
    error_id = answer.error["extensions"]["errorId"]
    (record,) = [each for each in caplog.records if error_id in each.getMessage()]
    assert record.exc_info is not None
    assert str(row) in str(record.exc_info[1])
    assert log.data["auditLog"]["nodes"] == [
        {"action": "test-credential", "result": "UNKNOWN_ENCRYPTION_KEY"}
    ]
    assert len(exchanges.calls) == calls


@pytest.mark.parametrize("role", [Role.USER, Role.ADMIN])
async def test_anothers_credential_reads_as_not_found(house: House, role: Role) -> None:
    owner, other = await house.person(), await house.person(role)
    owned = (await added(owner))["id"]

    answers = [
        (await other.ask(TEST, id=owned)).data["testCredential"],
        (await other.ask(DELETE, id=owned)).data["deleteCredential"],
        (await other.ask(UPDATE, input={"id": owned, "version": 1})).data["updateCredential"],
    ]

    assert {answer["__typename"] for answer in answers} == {"NotFound"}
    assert (await other.ask(NODE, id=owned)).data["node"] is None
    found = (await owner.ask(NODE, id=owned)).data["node"]
    assert found == {"id": owned, "__typename": "Credential"}


@pytest.mark.parametrize("id", ["", "nonsense", global_id("Backfill", str(UUID(int=7)))])
async def test_an_id_of_something_else_reads_as_not_found(house: House, id: str) -> None:
    person = await house.person()

    assert (await person.ask(DELETE, id=id)).data["deleteCredential"]["__typename"] == "NotFound"


async def test_who_only_reads_adds_none(house: House) -> None:
    reader, given = await house.person(Role.READ_ONLY), {"service": "binance", "name": "main"}

    assert (await reader.ask(ADD, input=given | {"keys": KEYS})).codes == ["FORBIDDEN"]
    assert (await house.stranger.ask(ALL)).codes == ["UNAUTHENTICATED"]
    assert (await reader.ask(ALL)).data["credentials"] == []


async def test_a_secret_in_the_document_is_refused_and_not_repeated(house: House) -> None:
    person = await house.person()

    answer = await person.ask(
        'mutation { addCredential(input: {service: "binance", name: "main", '
        f'keys: {{key: "{KEY}", secret: "{SECRET}"}}}}) {{ __typename }} }}'
    )

    assert "variables only" in answer.errors[0]["message"]
    assert SECRET not in str(answer.body)
    assert (await person.ask(ALL)).data["credentials"] == []


@pytest.mark.parametrize(
    "input",
    [
        {"service": "binance", "keys": KEYS},
        {"service": "binance", "name": 7, "keys": KEYS},
        {"service": "binance", "name": "main", "keys": KEYS | {"wrong": 1}},
        {"service": "binance", "name": "main", "keys": {"secret": SECRET}},
        {"service": "binance", "name": "main", "keys": KEYS | {"aux": [SECRET]}},
        {"service": "binance", "name": "main", "keys": SECRET},
        [SECRET],
    ],
)
async def test_variables_that_do_not_fit_are_refused_without_repeating_secrets(
    house: House, input: Any
) -> None:
    person = await house.person()

    answer = await person.ask(ADD, input=input)

    assert answer.errors
    assert SECRET not in str(answer.body)


async def test_variables_that_do_not_fit_are_told_what_is_wrong(house: House) -> None:
    person = await house.person()

    absent = await person.ask(ADD, input={"service": "binance", "keys": KEYS})
    number = await person.ask(ADD, input={"service": 7, "name": "main", "keys": KEYS})

    assert "required field 'name'." in absent.error["message"]
    assert number.error["message"].endswith(
        "at .service: String cannot represent a non string value: 7"
    )


async def test_venues_are_those_of_the_settings_whatever_keys_the_server_has(
    embedded: EmbeddedServers, database_url: str
) -> None:
    settings = settings_over(embedded, database_url, ccxt_exchanges=("kraken",))
    async with housed(settings) as house:
        person = await house.person()

        await added(person, service="kraken")
        await added(person, service="alpaca")
        unknown = await person.ask(ADD, input={"service": "krakn", "name": "a", "keys": KEYS})

    assert "Did you mean kraken" in unknown.data["addCredential"]["message"]


async def test_a_venue_that_was_taken_out_of_the_settings_is_unavailable(house: House) -> None:
    person = await house.person()
    credential = await added(person)
    (row,) = await _rows(house, person)
    async with house.identity.accounts.transaction() as transaction:
        moved = update(CredentialRow).where(CredentialRow.id == row).values(service="closed")
        await transaction._connection.execute(moved)

    answer = (await person.ask(TEST, id=credential["id"])).data["testCredential"]

    assert (answer["__typename"], answer["service"]) == ("VenueUnavailable", "closed")


async def _rows(house: House, person: Person) -> list[UUID]:
    assert person.user is not None
    async with house.identity.accounts.transaction() as transaction:
        return [each.id for each in await transaction.credentials.of(person.user.id)]
