"""Who counts as being at the server's machine: by the connection, and never by what it sends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tests.web.live.stage import Serving, served
from web.callers import caller_of, is_loopback

GUARDED = "mutation { guarded }"
EVENTS = {"accept": "text/event-stream"}
PROXIED = [
    {"x-forwarded-for": "203.0.113.7"},
    {"x-forwarded-for": "127.0.0.1"},
    {"X-Forwarded-Proto": "https"},
    {"x-forwarded-anything": ""},
    {"forwarded": "for=127.0.0.1"},
    {"via": "1.1 proxy"},
    {"x-real-ip": "127.0.0.1"},
]


def connection(client: str | None, **headers: str) -> HTTPConnection:
    return HTTPConnection(
        {
            "type": "http",
            "client": None if client is None else (client, 50_000),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST", "app.localhost"]
)
def test_an_address_of_the_machine_itself_is_local(client: str, host: str) -> None:
    assert caller_of(connection(client, host=host)).local


@pytest.mark.parametrize(
    "client",
    ["192.168.1.7", "10.0.0.1", "172.17.0.1", "::", "0.0.0.0", "fe80::1", "::ffff:10.0.0.1"],
)
def test_any_other_address_is_not(client: str) -> None:
    assert not caller_of(connection(client, host="localhost")).local


@pytest.mark.parametrize("client", [None, "", "localhost", "testclient", "127.0.0.1.evil.example"])
def test_what_has_no_address_is_not(client: str | None) -> None:
    assert not caller_of(connection(client, host="localhost")).local


@pytest.mark.parametrize("headers", PROXIED)
def test_what_came_through_a_proxy_is_not(headers: dict[str, str]) -> None:
    named = {name.lower(): value for name, value in headers.items()}

    assert not caller_of(connection("127.0.0.1", host="localhost", **named)).local


@pytest.mark.parametrize(
    "host",
    ["evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.5", "[", ""],
)
def test_a_page_that_calls_this_machine_by_another_name_is_not(host: str) -> None:
    assert not caller_of(connection("127.0.0.1", host=host)).local


@given(st.text(st.characters(codec="latin-1")), st.text(st.characters(codec="latin-1")))
def test_no_header_makes_another_machine_local(name: str, value: str) -> None:
    asked = connection("203.0.113.7", host="localhost", **{name.lower(): value})

    assert not caller_of(asked).local


@given(st.text())
def test_any_text_is_an_address_of_the_machine_or_is_not(host: str) -> None:
    assert is_loopback(host) in {True, False}


@pytest.mark.parametrize("trusted", ["127.0.0.1", "*"])
async def test_a_server_that_believes_in_forwarded_addresses_makes_nobody_local(
    trusted: str,
) -> None:
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        asked = HTTPConnection(scope)
        seen.append((asked.client.host if asked.client else None, caller_of(asked).local))

    wrapped = ProxyHeadersMiddleware(app, trusted)
    asked = connection("127.0.0.1", **{"host": "localhost", "x-forwarded-for": "127.0.0.1"})
    await wrapped(asked.scope, None, None)  # type: ignore[arg-type]  # neither is used

    assert seen == [("127.0.0.1", False)]


async def over_http(serving: Serving, headers: Mapping[str, str]) -> Any:
    async with serving.http() as http:
        answer = await http.post("/graphql", json={"query": GUARDED}, headers=headers)
    return answer.json()


async def over_events(serving: Serving, headers: Mapping[str, str]) -> Any:
    async with serving.http() as http:
        answer = await http.post("/graphql", json={"query": GUARDED}, headers={**headers, **EVENTS})
    assert answer.headers["content-type"].startswith("text/event-stream")
    line = next(line for line in answer.text.splitlines() if line.startswith("data: {"))
    return json.loads(line.removeprefix("data: "))


async def over_a_socket(serving: Serving, headers: Mapping[str, str]) -> Any:
    async with serving.client(additional_headers=headers) as client:
        await client.subscribe("1", GUARDED)
        return await client.answer("1")


TRANSPORTS = [over_http, over_events, over_a_socket]


@pytest.mark.parametrize("sent", TRANSPORTS)
async def test_programs_on_the_machine_may_do_what_only_they_may(sent: Any) -> None:
    async with served() as serving:
        answer = await sent(serving, {})

    assert answer == {"data": {"guarded": "done"}}


@pytest.mark.parametrize("sent", TRANSPORTS)
@pytest.mark.parametrize("headers", PROXIED)
async def test_behind_a_proxy_nobody_may(sent: Any, headers: dict[str, str]) -> None:
    async with served() as serving:
        answer = await sent(serving, headers)

    (error,) = answer["errors"]
    assert error["extensions"] == {"code": "FORBIDDEN"}
    assert answer["data"] is None


async def test_a_subscription_knows_who_asked_for_it() -> None:
    async with served() as serving:
        async with serving.client() as here:
            await here.subscribe("1", "subscription { local }")
            near = await here.answer("1")
        async with serving.client(additional_headers={"via": "1.1 proxy"}) as elsewhere:
            await elsewhere.subscribe("1", "subscription { local }")
            far = await elsewhere.answer("1")

    assert (near, far) == ({"data": {"local": True}}, {"data": {"local": False}})


@pytest.mark.parametrize("accept", [{}, EVENTS])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_a_mutation_of_a_foreign_page_is_refused(accept: dict[str, str], origin: str) -> None:
    async with served() as serving, serving.http() as http:
        answer = await http.post(
            "/graphql", json={"query": GUARDED}, headers={"origin": origin, **accept}
        )

    assert answer.status_code == 403
    assert answer.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_a_mutation_of_a_page_of_our_own_or_of_a_named_site_is_not() -> None:
    async with served(origins=["https://app.example"]) as serving, serving.http() as http:
        own = {"origin": f"http://{serving.host}:{serving.port}"}
        named = {"origin": "https://app.example"}
        answers = [
            await http.post("/graphql", json={"query": GUARDED}, headers=headers)
            for headers in (own, named)
        ]

    assert [answer.json() for answer in answers] == [{"data": {"guarded": "done"}}] * 2


async def test_a_query_of_a_foreign_page_is_answered_as_ever() -> None:
    async with served() as serving, serving.http() as http:
        answer = await http.post(
            "/graphql", json={"query": "{ hello }"}, headers={"origin": "https://evil.example"}
        )

    assert answer.json() == {"data": {"hello": "hello world"}}


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_what_a_form_of_another_site_can_send_is_no_mutation(media_type: str) -> None:
    async with served() as serving, serving.http() as http:
        answer = await http.post(
            "/graphql",
            content=json.dumps({"query": GUARDED}),
            headers={"content-type": media_type},
        )

    assert answer.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE


async def test_a_page_whose_name_was_turned_to_this_machine_may_do_nothing() -> None:
    async with served() as serving, serving.http() as http:
        name = f"evil.example:{serving.port}"
        answer = await http.post(
            "/graphql",
            json={"query": GUARDED},
            headers={"host": name, "origin": f"http://{name}"},
        )

    assert answer.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"
