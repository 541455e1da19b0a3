"""Accounts over GraphQL: what is refused, cookies, tokens for programs, and limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from db.accounts.permissions import Role
from db.embedded.servers import EmbeddedServers
from resolvers.identity.administration import set_role
from resolvers.identity.principal import Origin
from schema.node import global_id
from tests.accounts import CHEAP, added, bearer_of, session_of
from tests.api import Api
from tests.conftest import scratch_database
from tests.schema.identity_client import (
    CREATE,
    LOGIN,
    LOGOUT,
    ME,
    PASSWORD,
    REFRESH,
    REGISTER,
    TOKEN,
    ask,
    bearer,
    identity_api,
    known,
    login,
    member,
    post,
    wanted,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

HERE = {"x-requested-with": "a page of ours"}


@pytest.fixture(scope="module")
def own_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        yield url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("identity")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(embedded: EmbeddedServers, own_url: str, folder: Path) -> AsyncIterator[Api]:
    async with identity_api(embedded, own_url, folder) as api:
        yield api


@pytest.mark.parametrize(
    ("values", "failure"),
    [
        ({"password": "short"}, {"__typename": "WeakPassword", "field": "password"}),
        ({"email": "nowhere"}, {"__typename": "InvalidInput", "field": "email"}),
        ({"username": "a b"}, {"__typename": "InvalidInput", "field": "username"}),
        ({"invitation": "forged"}, {"__typename": "InvitationInvalid"}),
    ],
)
async def test_a_registration_that_cannot_be_says_why(
    api: Api, values: dict[str, str], failure: dict[str, str]
) -> None:
    answer = await ask(api, REGISTER, input=wanted("bea") | values)

    assert failure.items() <= answer.data["register"].items()


async def test_a_registration_does_not_tell_whose_address_is_known(api: Api) -> None:
    await known(api, username="carl", email="carl@example.com")

    again = await ask(api, REGISTER, input=wanted("carla", email="carl@example.com"))
    taken = await ask(api, REGISTER, input=wanted("carl", email="other@example.com"))

    assert again.data["register"] == {"__typename": "Registered", "email": "carl@example.com"}
    assert taken.data["register"] == {
        "__typename": "NameTaken",
        "code": "NAME_TAKEN",
        "field": "username",
    }


async def test_a_wrong_password_and_an_unknown_name_look_the_same(api: Api) -> None:
    somebody = await known(api)

    answers = [
        await login(api, username=somebody["username"], password="wrong"),
        await login(api, username="nobody-at-all", password="wrong"),
        await login(api, username=somebody["username"], password="x" * 100_000),
    ]

    assert answers == [{"__typename": "LoginFailed", "code": "LOGIN_FAILED"}] * 3


async def test_a_password_is_no_part_of_a_document(api: Api) -> None:
    answer = await ask(
        api, 'mutation { login(input: {username: "x", password: "y"}) { __typename } }'
    )

    assert answer.codes == ["GRAPHQL_VALIDATION_FAILED"]


@pytest.mark.parametrize("token", ["nonsense", "bgr_" + "A" * 64, None])
async def test_a_refresh_token_that_does_not_count_says_so(api: Api, token: str | None) -> None:
    answer = await ask(api, REFRESH, input={"refreshToken": token})

    assert answer.data["refresh"] == {"__typename": "SessionOver", "code": "UNAUTHENTICATED"}


def cookie_of(answer: httpx.Response) -> Any:
    return SimpleCookie(answer.headers["set-cookie"])["bargraph_refresh"]


async def kept(api: Api) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the headers of a page whose browser keeps a session, and what login answered."""
    answer = await post(api, LOGIN, input={**await known(api), "cookie": True})
    return {"cookie": f"bargraph_refresh={cookie_of(answer).value}"}, answer.json()["data"]["login"]


async def test_a_browser_keeps_its_refresh_token_where_no_script_reads_it(api: Api) -> None:
    answer = await post(api, LOGIN, input={**await known(api), "cookie": True})

    cookie = cookie_of(answer)
    assert cookie.value.startswith("bgr_")
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/graphql")
    assert cookie["expires"]
    assert cookie.value not in answer.text
    assert answer.json()["data"]["login"]["refreshToken"] is None


async def test_a_browser_goes_on_with_its_cookie_and_gets_the_next(api: Api) -> None:
    cookie, signed_in = await kept(api)

    answer = await post(api, REFRESH, {**cookie, **HERE}, input={})

    refreshed = answer.json()["data"]["refresh"]
    me = await ask(api, ME, bearer(refreshed["accessToken"]))
    assert me.data["me"]["id"] == signed_in["user"]["id"]
    assert refreshed["refreshToken"] is None
    assert cookie_of(answer).value not in cookie["cookie"]


async def test_a_cookie_alone_does_nothing(api: Api) -> None:
    cookie, _ = await kept(api)

    refreshed = await post(api, REFRESH, cookie, input={})
    out = await ask(api, LOGOUT, cookie, input={})
    me = await ask(api, ME, {**cookie, **HERE})
    after = await ask(api, REFRESH, {**cookie, **HERE}, input={})

    assert refreshed.json()["data"]["refresh"]["__typename"] == "SessionOver"
    assert "set-cookie" not in refreshed.headers
    assert out.data["logout"] == {"__typename": "SessionOver"}
    assert me.codes == ["UNAUTHENTICATED"]
    assert after.data["refresh"]["__typename"] == "SignedIn"


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_a_page_of_another_site_cannot_use_the_cookie(api: Api, origin: str) -> None:
    cookie, _ = await kept(api)

    answer = await post(api, REFRESH, {**cookie, **HERE, "origin": origin}, input={})

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("by", ["cookie", "access token", "refresh token"])
async def test_whoever_signs_out_is_out(api: Api, by: str) -> None:
    cookie, signed_in = await kept(api)
    token = cookie["cookie"].partition("=")[2]
    headers, given = {
        "cookie": ({**cookie, **HERE}, {}),
        "access token": (bearer(signed_in["accessToken"]), {}),
        "refresh token": ({}, {"refreshToken": token}),
    }[by]

    answer = await post(api, LOGOUT, headers, input=given)

    assert answer.json()["data"]["logout"] == {"__typename": "LoggedOut"}
    assert cookie_of(answer).value == ""
    assert (await ask(api, ME, bearer(signed_in["accessToken"]))).status == 401
    over = await ask(api, REFRESH, input={"refreshToken": token})
    assert over.data["refresh"]["__typename"] == "SessionOver"


async def test_whoever_signs_out_by_an_api_token_is_told_that_it_goes_on(api: Api) -> None:
    headers = await member(api)
    made = (await ask(api, CREATE, headers, input=TOKEN)).data["createApiToken"]["token"]
    out = """mutation L($input: LogoutInput!) {
      logout(input: $input) { __typename ... on SessionOver { code message } }
    }"""

    alone = await ask(api, out, bearer(made), input={})
    me = await ask(api, ME, bearer(made))
    cookie, signed_in = await kept(api)
    with_cookie = await ask(api, out, {**bearer(made), **cookie, **HERE}, input={})

    assert alone.data["logout"] == {
        "__typename": "SessionOver",
        "code": "NO_SESSION",
        "message": "An API token has no session to end. Revoke it instead.",
    }
    assert me.data["me"]
    assert with_cookie.data["logout"] == {"__typename": "LoggedOut"}
    assert (await ask(api, ME, bearer(signed_in["accessToken"]))).status == 401


async def test_a_profile_changes_where_it_is_told_to(api: Api) -> None:
    headers = await bearer_of(api.wired.shared.identity)
    change = """mutation U($input: UpdateProfileInput!) {
      updateProfile(input: $input) {
        ... on ProfileUpdated { user { nickname bio location } } ... on InvalidInput { field }
      }
    }"""

    first = await ask(api, change, headers, input={"nickname": "Ada", "bio": "counts\nbars"})
    second = await ask(api, change, headers, input={"nickname": None, "location": "London"})
    refused = await ask(api, change, headers, input={"nickname": "x" * 81})

    assert first.data["updateProfile"]["user"] == {
        "nickname": "Ada",
        "bio": "counts\nbars",
        "location": None,
    }
    assert second.data["updateProfile"]["user"] == {
        "nickname": None,
        "bio": "counts\nbars",
        "location": "London",
    }
    assert refused.data["updateProfile"] == {"field": "nickname"}


TOKENS = "{ apiTokens { id name prefix scopes lastUsedAt } }"
REVOKE = "mutation R($id: ID!) { revokeApiToken(input: {id: $id}) { __typename } }"


async def test_a_token_for_a_program_is_shown_once_and_does_what_it_is_for(api: Api) -> None:
    headers = await member(api)

    made = (await ask(api, CREATE, headers, input=TOKEN)).data
    token = made["createApiToken"]["token"]
    listed = await ask(api, TOKENS, bearer(token))
    refused = await ask(api, CREATE, bearer(token), input=TOKEN)

    (shown,) = listed.data["apiTokens"]
    assert (shown["name"], shown["scopes"]) == ("bot", ["READ"])
    assert token.startswith(f"bgt_{shown['prefix']}_")
    assert token not in str(listed.body)
    assert refused.codes == ["FORBIDDEN"]


async def test_a_revoked_token_does_not_count(api: Api) -> None:
    headers = await member(api)
    made = (await ask(api, CREATE, headers, input=TOKEN)).data
    token, made_id = made["createApiToken"]["token"], made["createApiToken"]["apiToken"]["id"]

    first, second = [await ask(api, REVOKE, headers, id=made_id) for _ in range(2)]

    assert first.data["revokeApiToken"] == {"__typename": "ApiTokenRevoked"}
    assert second.data["revokeApiToken"] == {"__typename": "NotFound"}
    assert (await ask(api, ME, bearer(token))).codes == ["UNAUTHENTICATED"]


@pytest.mark.parametrize("input", [{"name": " "}, {"scopes": []}, {"days": 0}, {"days": 367}])
async def test_a_token_that_cannot_be_says_why(api: Api, input: dict[str, Any]) -> None:
    headers = await member(api)

    answer = await ask(api, CREATE, headers, input={**TOKEN, **input})

    assert answer.data["createApiToken"] == {
        "__typename": "InvalidInput",
        "field": next(iter(input)),
    }


async def test_what_is_another_users_reads_as_not_found(api: Api) -> None:
    identity = api.wired.shared.identity
    session = await session_of(identity, password_hash=CHEAP.hash(PASSWORD))
    owner = bearer(session.access.text.get_secret_value())
    stranger, admin = await bearer_of(identity), await bearer_of(identity, Role.ADMIN)
    made = (await ask(api, CREATE, owner, input=TOKEN)).data
    token_id = made["createApiToken"]["apiToken"]["id"]
    node = "query N($id: ID!) { node(id: $id) { __typename id } }"

    for kind, theirs in (("User", global_id("User", session.user_id.hex)), ("ApiToken", token_id)):
        own = await ask(api, node, owner, id=theirs)
        assert own.data["node"] == {"__typename": kind, "id": theirs}
        for other in (stranger, admin):
            assert (await ask(api, node, other, id=theirs)).data == {"node": None}
        assert (await ask(api, node, id=theirs)).codes == ["UNAUTHENTICATED"]
    revoked = await ask(api, REVOKE, stranger, id=token_id)
    assert revoked.data["revokeApiToken"] == {"__typename": "NotFound"}
    assert len((await ask(api, TOKENS, owner)).data["apiTokens"]) == 1


async def test_a_new_role_counts_at_the_next_request(api: Api) -> None:
    identity = api.wired.shared.identity
    user = await added(identity.accounts, password_hash=CHEAP.hash(PASSWORD))
    headers = bearer((await login(api, username=user.username, password=PASSWORD))["accessToken"])
    before = await ask(api, CREATE, headers, input=TOKEN)

    await set_role(identity, None, user.username, Role.READ_ONLY, origin=Origin())
    after = await ask(api, CREATE, headers, input=TOKEN)

    assert before.data["createApiToken"]["__typename"] == "ApiTokenCreated"
    assert after.codes == ["FORBIDDEN"]


async def test_tries_at_one_account_are_limited_wherever_they_come_from(
    embedded: EmbeddedServers, own_url: str, folder: Path
) -> None:
    settings = {"rate_logins": 40, "trusted_proxies": ("127.0.0.1",)}
    async with identity_api(embedded, own_url, folder, **settings) as api:

        async def tried(name: str, address: str) -> httpx.Response:
            return await post(
                api,
                LOGIN,
                {"x-forwarded-for": address},
                input={"username": name, "password": "wrong"},
            )

        answers = [await tried("victim", f"198.51.100.{n}") for n in range(3)]
        other = await tried("another", "198.51.100.9")

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
    assert int(answers[2].headers["retry-after"]) >= 1
    assert other.json()["data"]["login"]["__typename"] == "LoginFailed"


async def test_an_account_is_tried_no_more_often_by_both_its_names_than_it_may_be(
    embedded: EmbeddedServers, own_url: str, folder: Path
) -> None:
    async with identity_api(embedded, own_url, folder, rate_logins=40) as api:
        user = await added(api.wired.shared.identity.accounts)
        answers = [
            await post(api, LOGIN, input={"username": name, "password": "wrong"})
            for _ in range(5)
            for name in (user.username, user.email, user.username.upper(), user.email.upper())
        ]

    tried = [answer for answer in answers if answer.status_code == 200]
    assert len(tried) == 4  # a tenth of what one address may try
    assert {answer.json()["data"]["login"]["__typename"] for answer in tried} == {"LoginFailed"}


@pytest.mark.parametrize("mutation", ["requestPasswordReset", "requestVerification"])
async def test_nobody_keeps_another_from_asking_for_a_mail(
    embedded: EmbeddedServers, own_url: str, folder: Path, mutation: str
) -> None:
    request = f"""mutation R($email: String!) {{
      {mutation}(input: {{email: $email}}) {{ __typename ... on MailRequested {{ email }} }}
    }}"""
    settings = {"rate_logins": 40, "trusted_proxies": ("127.0.0.1",)}
    async with identity_api(embedded, own_url, folder, **settings) as api:
        user = await added(api.wired.shared.identity.accounts)
        answers = [
            await post(api, request, {"x-forwarded-for": f"198.51.100.{n}"}, email=email)
            for n in range(9)
            for email in (user.email, "nobody@example.com")
        ]

    assert [answer.status_code for answer in answers] == [200] * 18
    for answer, email in zip(answers, [user.email, "nobody@example.com"] * 9, strict=True):
        assert answer.json()["data"][mutation] == {"__typename": "MailRequested", "email": email}


async def test_mails_to_an_address_that_is_not_ones_own_yet_are_limited_and_the_user_is_told(
    embedded: EmbeddedServers, own_url: str, folder: Path
) -> None:
    change = """mutation E($input: ChangeEmailInput!) {
      changeEmail(input: $input) { __typename }
    }"""
    async with identity_api(embedded, own_url, folder, rate_logins=40) as api:
        statuses = []
        for _ in range(3):
            given = {"email": "mailbox@example.com", "password": PASSWORD}
            statuses.append((await post(api, change, await member(api), input=given)).status_code)

    assert statuses == [200, 200, 429]


async def test_tries_at_ones_own_password_count_like_tries_to_sign_in(
    embedded: EmbeddedServers, own_url: str, folder: Path
) -> None:
    change = """mutation C($old: Secret!, $new: Secret!) {
      changePassword(input: {password: $old, newPassword: $new}) { __typename }
    }"""
    async with identity_api(embedded, own_url, folder, rate_logins=40) as api:
        headers = await bearer_of(api.wired.shared.identity)
        answers = [
            await post(api, change, headers, old=f"guess {n}", new="new horse, new battery")
            for n in range(3)
        ]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[1].json()["data"]["changePassword"] == {"__typename": "WrongPassword"}
