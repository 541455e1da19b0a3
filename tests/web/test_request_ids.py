"""Each request and each operation has an id of ours, which its answer, log and audit share."""

from __future__ import annotations

import contextvars
import io
import json
from typing import Any

import pytest
from graphql import GraphQLError
from hypothesis import given
from hypothesis import strategies as st

from db.accounts.permissions import Role
from tests.web.doors import EVENTS, Door, payload_of
from web.app import told_error
from web.logs import logging_to
from web.request_ids import (
    LONGEST,
    begin_operation,
    begin_request,
    client_request_id,
    current_request_id,
    go_on_as,
)

over_the_door = pytest.mark.asyncio(loop_scope="session")

MARKETS = "{ markets { name } }"
LOGIN = 'mutation ($password: Secret!) { login(input: {username: "nobody", password: $password}) '
LOGIN += "{ __typename } }"
SAVE = 'mutation { updateProfile(input: {nickname: "%s"}) { __typename } }'
LINES = "{ auditLog(first: 50%s) { nodes { action requestId } } }"


async def lines(door: Door, token: str) -> list[dict[str, Any]]:
    """Return all lines of the audit log that an admin sees."""
    answer = await door.ask(LINES % ", filter: {everybody: true}", token)
    return answer["data"]["auditLog"]["nodes"]


@over_the_door
async def test_every_answer_says_which_request_it_is_of_and_no_two_are_the_same(
    door: Door,
) -> None:
    async with door.serving.http() as http:
        answers = [
            await http.get("/graphql", params={"query": MARKETS}),
            await http.get("/graphql", params={"query": MARKETS}),
            await http.options("/graphql"),
            await http.post("/graphql", content=b"{"),
            await http.get("/nowhere"),
            await http.get("/metrics"),
            await http.get("/graphql", headers={"authorization": "Bearer nonsense"}),
        ]

    named = [answer.headers.get_list("x-request-id") for answer in answers]
    assert all(len(each) == 1 for each in named)
    assert len({each[0] for each in named}) == len(answers)


@over_the_door
@pytest.mark.parametrize("accepts", [{}, EVENTS])
async def test_the_audit_log_names_the_request_that_was_answered(
    door: Door, accepts: dict[str, str]
) -> None:
    admin = await door.session(Role.ADMIN)

    answer = await door.post(
        LOGIN, variables={"password": "of nobody"}, headers={**accepts, "x-request-id": "chosen"}
    )

    (entry, *_) = await lines(door, admin)
    assert answer.status_code == 200
    assert entry == {"action": "login", "requestId": answer.headers["x-request-id"]}


@over_the_door
async def test_each_operation_of_a_socket_has_an_id_that_begins_like_the_sockets(
    door: Door,
) -> None:
    token = await door.session()

    async with door.serving.socket() as client:
        assert client.connection.response is not None
        socket = client.connection.response.headers["x-request-id"]
        await client.init(payload_of(token))
        for number in ("1", "2"):
            await client.subscribe(number, SAVE % number)
            await client.answer(number)

    answer = await door.ask(LINES % "", token)
    noted = [
        line["requestId"]
        for line in answer["data"]["auditLog"]["nodes"]
        if line["action"] == "update-profile"
    ]
    assert noted == [f"{socket}-2", f"{socket}-1"]


@over_the_door
async def test_a_socket_that_is_refused_is_told_its_request_too(door: Door) -> None:
    async with door.serving.http() as http:
        upgrade = {
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            "origin": "https://evil.example",
        }
        answer = await http.get("/graphql", headers=upgrade)

    assert answer.status_code == 403
    assert len(answer.headers.get_list("x-request-id")) == 1


@over_the_door
async def test_at_debug_each_request_is_a_line_without_what_its_url_asks(door: Door) -> None:
    stream = io.StringIO()
    with logging_to(stream, level="debug", form="json"):
        async with door.serving.http() as http:
            answer = await http.get(
                "/graphql", params={"query": MARKETS}, headers={"x-request-id": "front-7"}
            )

    (line,) = (
        line
        for line in map(json.loads, stream.getvalue().splitlines())
        if line["logger"] == "web.headers"
    )
    assert line["event"].startswith("GET /graphql: 200 in ")
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["client_request_id"] == "front-7"
    assert "markets" not in str(line)


def test_an_error_that_is_masked_names_its_request_and_the_log_has_both() -> None:
    def fails() -> tuple[str, dict[str, Any]]:
        request = begin_request()
        bug = GraphQLError("x", original_error=RuntimeError("inside"))
        return request, told_error(bug)

    stream = io.StringIO()
    with logging_to(stream, level="info", form="json"):
        request, shown = contextvars.Context().run(fails)

    line = json.loads(stream.getvalue())
    assert shown["extensions"].items() >= {"code": "INTERNAL", "requestId": request}.items()
    assert line["request_id"] == request
    assert shown["extensions"]["errorId"] in line["event"]
    assert "RuntimeError: inside" in line["exception"]


def test_an_error_that_says_what_is_wrong_does_not() -> None:
    assert told_error(GraphQLError("no such field")) == {"message": "no such field"}


@given(st.binary(max_size=200))
def test_what_a_client_calls_its_request_is_plain_or_nothing_and_never_the_id(told: bytes) -> None:
    def begun() -> tuple[str, str | None, str | None]:
        return begin_request(told), current_request_id(), client_request_id()

    made, current, client = contextvars.Context().run(begun)

    assert made == current != client
    assert client is None or (client.encode() == told and client.isprintable() and len(told) < 65)


def test_the_next_request_of_a_connection_knows_nothing_of_the_one_before() -> None:
    def two() -> tuple[str, str, str | None]:
        return begin_request(b"mine"), begin_request(), client_request_id()

    first, second, client = contextvars.Context().run(two)

    assert first != second
    assert client is None


@given(st.text(max_size=300), st.integers(1, 2**63))
def test_no_id_is_longer_than_the_audit_log_can_hold(name: str, number: int) -> None:
    def operation() -> str:
        begin_request()
        return begin_operation(number)

    def job() -> str | None:
        go_on_as(name)
        return current_request_id()

    for made in (contextvars.Context().run(operation), contextvars.Context().run(job)):
        assert made is not None
        assert len(made) <= LONGEST
