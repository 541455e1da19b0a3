"""What people do with an account from its first day to its last, on each kind of database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
import pytest_asyncio
from pydantic import SecretStr

from db.embedded.servers import EmbeddedServers
from tests.api import Api
from tests.conftest import scratch_accounts, scratch_database
from tests.schema.identity_client import (
    CREATE,
    LOGOUT,
    ME,
    NOW,
    PASSWORD,
    REFRESH,
    REGISTER,
    TOKEN,
    ask,
    bearer,
    identity_api,
    known,
    login,
    mailed,
    mails,
    session,
    wanted,
)
from tests.web.live.stage import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEW = "new horse, new battery"
VERIFY = "mutation V($t: Secret!) { verifyEmail(input: {token: $t}) { __typename } }"
CHANGE_EMAIL = """mutation E($input: ChangeEmailInput!) {
  changeEmail(input: $input) {
    __typename ... on EmailChangeRequested { email } ... on TooSoon { retryAfter }
    ... on InvalidInput { field }
  }
}"""
CHANGE_PASSWORD = """mutation C($old: Secret!, $new: Secret!) {
  changePassword(input: {password: $old, newPassword: $new}) {
    __typename ... on PasswordChanged { accessToken }
  }
}"""
ENROL = """mutation E($p: Secret!) {
  enrolSecondFactor(input: {password: $p}) { __typename ... on SecondFactorEnrolled { secret } }
}"""
CONFIRM = """mutation C($c: Secret!) {
  confirmSecondFactor(input: {code: $c}) {
    __typename ... on SecondFactorConfirmed { recoveryCodes }
  }
}"""
TURN_OFF = """mutation O($p: Secret!, $c: Secret!) {
  turnOffSecondFactor(input: {password: $p, code: $c}) { __typename }
}"""
SESSIONS = "{ sessions { id agent address createdAt lastUsedAt expiresAt isCurrent } }"
END = "mutation E($id: ID!) { endSession(input: {id: $id}) { __typename } }"
END_OTHERS = "mutation { endSession(input: {}) { ... on SessionEnded { count } } }"
EXPORT = """mutation X($p: Secret!) {
  exportAccount(input: {password: $p}) {
    __typename ... on AccountExported { exportedAt content }
  }
}"""
DELETE = """mutation D($input: DeleteAccountInput!) {
  deleteAccount(input: $input) { __typename ... on AccountDeleted { username } }
}"""


@pytest.fixture(scope="module")
def candles_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        yield url


@pytest.fixture(scope="module", params=["mariadb", "embedded"])
def accounts_at(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Settings that keep accounts in a MariaDB, or beside the candles."""
    if request.param == "embedded":
        yield {}
        return
    with scratch_accounts(request.param, request) as url:
        yield {"accounts_url": SecretStr(url)}


@pytest.fixture(scope="module")
def folder(accounts_at: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where mails of one server are."""
    return tmp_path_factory.mktemp("flows")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(
    embedded: EmbeddedServers, candles_url: str, accounts_at: dict[str, Any], folder: Path
) -> AsyncIterator[Api]:
    async with identity_api(embedded, candles_url, folder, **accounts_at) as api:
        yield api


async def test_whoever_registers_and_follows_the_link_signs_in_goes_on_and_leaves(
    api: Api, folder: Path
) -> None:
    registered = await ask(api, REGISTER, input=wanted("ada"))
    early = await login(api, username="ada", password=PASSWORD)
    verified = await ask(api, VERIFY, t=await mailed(folder, "ada@example.com"))
    first = await login(api, username="Ada", password=PASSWORD)
    second = (await ask(api, REFRESH, input={"refreshToken": first["refreshToken"]})).data[
        "refresh"
    ]
    me = await ask(api, ME, bearer(second["accessToken"]))
    out = await ask(api, LOGOUT, bearer(second["accessToken"]), input={})
    after = await ask(api, ME, bearer(second["accessToken"]))

    assert registered.data["register"] == {"__typename": "Registered", "email": "ada@example.com"}
    assert early == {"__typename": "EmailNotVerified", "code": "EMAIL_NOT_VERIFIED"}
    assert verified.data["verifyEmail"] == {"__typename": "EmailVerified"}
    user = first["user"]
    assert (user["username"], user["role"], user["emailVerified"]) == ("ada", "USER", True)
    assert second["refreshToken"] not in (None, first["refreshToken"])
    assert me.data["me"]["id"] == user["id"]
    assert out.data["logout"] == {"__typename": "LoggedOut"}
    assert after.status == 401


async def test_another_address_counts_once_it_was_proved_and_the_old_one_is_told(
    api: Api, folder: Path
) -> None:
    somebody = await known(api, email="bea@example.com")
    headers = await session(api, somebody)

    async def change(email: str, password: str = PASSWORD) -> dict[str, Any]:
        given = {"email": email, "password": password}
        return (await ask(api, CHANGE_EMAIL, headers, input=given)).data["changeEmail"]

    refused = [await change("bea@new.example", "wrong"), await change("nowhere")]
    asked = await change("bea@new.example")
    soon = await change("bea@newer.example")
    before = await ask(api, ME, headers)
    link = await mailed(folder, "bea@new.example")
    await ask(api, VERIFY, t=link)
    after = await ask(api, ME, headers)

    assert refused == [
        {"__typename": "WrongPassword"},
        {"__typename": "InvalidInput", "field": "email"},
    ]
    assert asked == {"__typename": "EmailChangeRequested", "email": "bea@new.example"}
    assert soon == {"__typename": "TooSoon", "retryAfter": 60.0}
    assert before.data["me"]["email"] == "bea@example.com"
    assert after.data["me"]["email"] == "bea@new.example"
    await until(lambda: len(mails(folder, "bea@example.com")) == 2)
    assert link not in "".join(mails(folder, "bea@example.com"))
    by_address = await login(api, username="bea@new.example", password=PASSWORD)
    assert by_address["__typename"] == "SignedIn"


async def test_a_forgotten_password_is_set_anew_by_mail(api: Api, folder: Path) -> None:
    somebody = await known(api, email="dora@example.com")
    request = """mutation R($email: String!) {
      requestPasswordReset(input: {email: $email}) { __typename ... on MailRequested { email } }
    }"""
    reset = """mutation S($t: Secret!, $p: Secret!) {
      resetPassword(input: {token: $t, newPassword: $p}) { __typename }
    }"""

    asked = await ask(api, request, email="dora@example.com")
    unknown = await ask(api, request, email="nobody@example.com")
    token = await mailed(folder, "dora@example.com")
    done = await ask(api, reset, t=token, p=NEW)
    again = await ask(api, reset, t=token, p=NEW)

    assert asked.data["requestPasswordReset"] == {
        "__typename": "MailRequested",
        "email": "dora@example.com",
    }
    assert unknown.data["requestPasswordReset"]["__typename"] == "MailRequested"
    assert done.data["resetPassword"] == {"__typename": "PasswordReset"}
    assert again.data["resetPassword"] == {"__typename": "TokenInvalid"}
    assert (await login(api, **{**somebody, "password": NEW}))["__typename"] == "SignedIn"


async def test_another_password_ends_the_other_sessions(api: Api) -> None:
    somebody = await known(api)
    here, there = await session(api, somebody), await session(api, somebody)

    wrong = await ask(api, CHANGE_PASSWORD, here, old="x" * 1_000, new=NEW)
    right = await ask(api, CHANGE_PASSWORD, here, old=PASSWORD, new=NEW)

    assert wrong.data["changePassword"] == {"__typename": "WrongPassword"}
    token = right.data["changePassword"]["accessToken"]
    assert (await ask(api, ME, bearer(token))).data["me"]["username"] == somebody["username"]
    assert (await ask(api, ME, there)).status == 401
    assert (await login(api, **somebody))["__typename"] == "LoginFailed"


async def protected(api: Api, headers: dict[str, str]) -> tuple[pyotp.TOTP, list[str]]:
    """Turn codes on; return the authenticator and the recovery codes."""
    enrolled = await ask(api, ENROL, headers, p=PASSWORD)
    phone = pyotp.TOTP(enrolled.data["enrolSecondFactor"]["secret"])
    confirmed = await ask(api, CONFIRM, headers, c=phone.at(NOW // 1000))
    return phone, confirmed.data["confirmSecondFactor"]["recoveryCodes"]


async def test_one_time_codes_are_set_up_needed_and_turned_off(api: Api) -> None:
    somebody = await known(api)
    headers = await session(api, somebody)

    async def second_factor() -> dict[str, Any]:
        return (await ask(api, ME, headers)).data["me"]["secondFactor"]

    wrong, before = await ask(api, ENROL, headers, p="x" * 1_000), await second_factor()
    phone, codes = await protected(api, headers)
    needed, refused = await login(api, **somebody), await login(api, **somebody, code="000000")
    replayed = await login(api, **somebody, code=phone.at(NOW // 1000))
    recovered, left = await login(api, **somebody, code=codes[0]), await second_factor()
    ended = await ask(api, TURN_OFF, headers, p=PASSWORD, c=codes[1])

    assert wrong.data["enrolSecondFactor"] == {"__typename": "WrongPassword"}
    assert before == {"isOn": False, "recoveryCodesLeft": None}
    assert (needed["__typename"], refused["__typename"]) == ("CodeNeeded", "WrongCode")
    assert replayed["__typename"] == "WrongCode"
    assert recovered["__typename"] == "SignedIn"
    assert left == {"isOn": True, "recoveryCodesLeft": 9}
    assert ended.data["turnOffSecondFactor"] == {"__typename": "SecondFactorTurnedOff"}
    assert await second_factor() == {"isOn": False, "recoveryCodesLeft": None}
    assert (await login(api, **somebody))["__typename"] == "SignedIn"


async def test_sessions_are_seen_and_ended_one_by_one_or_all_others(api: Api) -> None:
    somebody = await known(api)
    here, phone = [
        bearer((await login(api, {"user-agent": agent}, **somebody))["accessToken"])
        for agent in ("a browser", "a phone")
    ]
    stranger = await session(api, await known(api))

    listed = (await ask(api, SESSIONS, here)).data["sessions"]
    of_phone = next(each for each in listed if each["agent"] == "a phone")
    node = "query N($id: ID!) { node(id: $id) { ... on UserSession { agent } } }"
    found = await ask(api, node, here, id=of_phone["id"])
    foreign = [await ask(api, END, stranger, id=of_phone["id"])]
    hidden = await ask(api, node, stranger, id=of_phone["id"])
    ended, again = [await ask(api, END, here, id=of_phone["id"]) for _ in range(2)]
    others = [await session(api, somebody) for _ in range(2)]
    all_ended = await ask(api, END_OTHERS, here)

    assert {(each["agent"], each["isCurrent"]) for each in listed} == {
        ("a browser", True),
        ("a phone", False),
    }
    assert {each["address"] for each in listed} == {"127.0.0.1"}
    assert {each["createdAt"] for each in listed} == {"2025-10-09T08:53:20.000Z"}
    assert found.data["node"] == {"agent": "a phone"}
    assert hidden.data["node"] is None
    assert [each.data["endSession"] for each in (*foreign, ended, again)] == [
        {"__typename": "NotFound"},
        {"__typename": "SessionEnded"},
        {"__typename": "NotFound"},
    ]
    assert all_ended.data["endSession"] == {"count": 2}
    for over in (phone, *others):
        assert (await ask(api, ME, over)).status == 401
    assert len((await ask(api, SESSIONS, here)).data["sessions"]) == 1
    assert (await ask(api, ME, stranger)).data["me"]


async def test_whoever_knows_the_password_takes_everything_along_but_secrets(api: Api) -> None:
    somebody = await known(api)
    first = await login(api, **somebody)
    headers = bearer(first["accessToken"])
    made = await ask(api, CREATE, headers, input=TOKEN)
    token = made.data["createApiToken"]["token"]

    wrong = await ask(api, EXPORT, headers, p="wrong")
    program = await ask(api, EXPORT, bearer(token), p=PASSWORD)
    exported = (await ask(api, EXPORT, headers, p=PASSWORD)).data["exportAccount"]

    assert wrong.data["exportAccount"] == {"__typename": "WrongPassword"}
    assert program.codes == ["FORBIDDEN"]
    assert exported["exportedAt"] == "2025-10-09T08:53:20.000Z"
    content = exported["content"]
    assert content["user"]["username"] == somebody["username"]
    assert [each["name"] for each in content["apiTokens"]] == ["bot"]
    assert [(line["action"], line["result"]) for line in content["auditLog"]] == [
        ("export-account", "ok"),
        ("export-account", "FORBIDDEN"),
        ("export-account", "WRONG_PASSWORD"),
        ("create-api-token", "ok"),
        ("login", "ok"),
    ]
    for secret in (PASSWORD, token, first["refreshToken"], "argon2"):
        assert secret not in json.dumps(content)


async def test_a_deleted_account_is_gone_with_all_that_opened_it(api: Api, folder: Path) -> None:
    somebody = await known(api, username="gone", email="gone@example.com")
    first = await login(api, **somebody)
    headers = bearer(first["accessToken"])
    made = await ask(api, CREATE, headers, input=TOKEN)
    token = made.data["createApiToken"]["token"]
    _, codes = await protected(api, headers)

    async def delete(**input: str) -> dict[str, Any]:
        return (await ask(api, DELETE, headers, input=input)).data["deleteAccount"]

    refused = [
        await delete(password="wrong", code=codes[0]),
        await delete(password=PASSWORD),
        await delete(password=PASSWORD, code="000000"),
    ]
    deleted = await delete(password=PASSWORD, code=codes[0])

    assert [each["__typename"] for each in refused] == ["WrongPassword", "CodeNeeded", "WrongCode"]
    assert deleted == {"__typename": "AccountDeleted", "username": "gone"}
    for shown in (first["accessToken"], token):
        assert (await ask(api, ME, bearer(shown))).status == 401
    over = await ask(api, REFRESH, input={"refreshToken": first["refreshToken"]})
    assert over.data["refresh"]["__typename"] == "SessionOver"
    assert (await login(api, **somebody))["__typename"] == "LoginFailed"
    await until(lambda: len(mails(folder, "gone@example.com")) == 3)
    anew = await ask(api, REGISTER, input=wanted("gone"))
    assert anew.data["register"]["__typename"] == "Registered"
