"""`graphql-transport-ws` as clients meet it: its messages in any order, and its close codes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from resolvers.callers import Caller
from tests.web.live.stage import TICKS, Serving, served, until
from web.live.connection import ConnectionForbidden
from web.live.limits import LiveLimits

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = LiveLimits(operations=5, message_bytes=10_000, id_length=20)
LONG = "subscription { count(to: 100000, delayMs: 20) }"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["frames", "asgi"])
async def serving(request: pytest.FixtureRequest) -> AsyncIterator[Serving]:
    """A server that offers to write frames, and one that has ASGI only."""
    ws = {} if request.param == "frames" else {"ws": "websockets-sansio"}
    async with served(LIMITS, **ws) as serving:
        yield serving


async def test_the_subprotocol_is_chosen_from_a_list(serving):
    async with serving.socket(subprotocols=["nope", "graphql-transport-ws"]) as client:
        assert client.connection.subprotocol == "graphql-transport-ws"


@pytest.mark.parametrize("offered", [None, ["graphql-ws"]])
async def test_without_the_subprotocol_it_is_closed(serving, offered):
    async with serving.socket(subprotocols=offered) as client:
        assert await client.closed() == (4406, "Subprotocol not acceptable")


@pytest.mark.parametrize("payload", [None, {}, {"token": "x"}])
async def test_an_init_is_acknowledged(serving, payload):
    async with serving.socket() as client:
        await client.init(payload)


async def test_a_second_init_closes(serving):
    async with serving.client() as client:
        await client.send({"type": "connection_init"})

        assert await client.closed() == (4429, "Too many initialisation requests")


async def test_subscribing_before_the_init_closes(serving):
    async with serving.socket() as client:
        await client.subscribe("1", "{ hello }")

        assert await client.closed() == (4401, "Unauthorized")


@pytest.mark.parametrize(
    "message",
    [
        "{not json",
        "null",
        "[]",
        '"hi"',
        "7",
        "[" * 5000,
        b"\x01\x02",
        {"id": "1"},
        {"type": "start", "id": "1"},
        {"type": ["ping"]},
        {"type": "next", "id": "1", "payload": {"data": {}}},
        {"type": "connection_init", "payload": "x"},
        {"type": "ping", "payload": "x"},
        {"type": "pong", "payload": []},
        {"type": "complete"},
        {"type": "complete", "id": 3},
        {"type": "subscribe", "payload": {"query": "{ hello }"}},
        {"type": "subscribe", "id": 5, "payload": {"query": "{ hello }"}},
        {"type": "subscribe", "id": "", "payload": {"query": "{ hello }"}},
        {"type": "subscribe", "id": "x" * 21, "payload": {"query": "{ hello }"}},
        {"type": "subscribe", "id": "1"},
        {"type": "subscribe", "id": "1", "payload": None},
        {"type": "subscribe", "id": "1", "payload": []},
        {"type": "subscribe", "id": "1", "payload": {}},
        {"type": "subscribe", "id": "1", "payload": {"query": 5}},
        {"type": "subscribe", "id": "1", "payload": {"query": "{ hello }", "variables": "x"}},
        {"type": "subscribe", "id": "1", "payload": {"query": "{ hello }", "variables": [1]}},
        {"type": "subscribe", "id": "1", "payload": {"query": "{ hello }", "operationName": 5}},
        {"type": "subscribe", "id": "1", "payload": {"query": "{ hello }", "extensions": "x"}},
    ],
    ids=repr,
)
async def test_a_malformed_message_closes(serving, message):
    async with serving.client() as client:
        await client.send(message)

        code, reason = await client.closed()

    assert code == 4400
    assert reason


async def test_a_message_that_is_too_large_closes(serving):
    async with serving.client() as client:
        with suppress(ConnectionClosed):  # it may not even be read to its end
            await client.send({"type": "ping", "payload": {"x": "y" * 10_000_000}})

        assert (await client.closed())[0] == 1009


async def test_pings_are_answered_before_and_after_the_init(serving):
    async with serving.socket() as client:
        await client.send({"type": "ping", "payload": {"n": 7}})
        assert await client.receive() == {"type": "pong", "payload": {"n": 7}}
        await client.init()
        await client.send({"type": "pong"})

        assert await client.alive()


async def test_a_ping_too_deep_to_be_written_is_answered_all_the_same(serving):
    async with serving.client() as client:
        await client.send('{"type":"ping","payload":{"a":' + "[" * 500 + "]" * 500 + "}}")

        assert await client.receive() == {"type": "pong"}


async def test_a_query_and_a_mutation_are_answered_and_completed(serving):
    async with serving.client() as client:
        await client.subscribe(
            "q",
            "query A { hello } query B($n: String!) { hello(name: $n) }",
            operationName="B",
            variables={"n": "you"},
            extensions={"x": 1},
        )
        await client.subscribe("m", "mutation { add(number: 1) }")

        assert await client.answer("q") == {"data": {"hello": "hello you"}}
        assert await client.of("q") == {"id": "q", "type": "complete"}
        assert await client.answer("m") == {"data": {"add": 2}}
        assert await client.of("m") == {"id": "m", "type": "complete"}


async def test_a_subscription_is_followed_to_its_end(serving):
    async with serving.client() as client:
        await client.subscribe("s", "subscription { count(to: 2) }")

        assert await client.answer("s") == {"data": {"count": 1}}
        assert await client.answer("s") == {"data": {"count": 2}}
        assert await client.of("s") == {"id": "s", "type": "complete"}


@pytest.mark.parametrize(
    ("query", "more", "code"),
    [
        ("{ oops", {}, "GRAPHQL_PARSE_FAILED"),
        ("", {}, "GRAPHQL_PARSE_FAILED"),
        ("{ nope }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { nope }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("{" + "a{" * 1500 + "a" + "}" * 1501, {}, "GRAPHQL_PARSE_FAILED"),
        ("query A { hello }", {"operationName": "Z"}, "OPERATION_RESOLUTION_FAILURE"),
        ("query A { hello } query B { hello }", {}, "OPERATION_RESOLUTION_FAILURE"),
        ("query ($n: String!) { hello(name: $n) }", {"variables": {"n": 1}}, "BAD_USER_INPUT"),
        ("subscription ($n: Int!) { count(to: $n) }", {"variables": {}}, "BAD_USER_INPUT"),
        ("subscription { ticks(of: -1) { number } }", {}, "BAD_USER_INPUT"),
        (
            None,
            {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}},
            "PERSISTED_QUERY_NOT_FOUND",
        ),
    ],
)
async def test_what_cannot_be_run_ends_that_operation_alone(
    serving, query: Any, more: dict[str, Any], code: str
):
    async with serving.client() as client:
        await client.subscribe("other", LONG)
        await client.subscribe("v", query, **more)

        refused = await client.of("v")

        assert refused["type"] == "error"
        assert [error["extensions"]["code"] for error in refused["payload"]] == [code]
        assert (await client.answer("other"))["data"]
        await client.subscribe("v", "{ hello }")  # the id is free again
        assert await client.answer("v") == {"data": {"hello": "hello world"}}


async def test_a_persisted_document_is_known_once_it_ran(serving):
    text = "subscription Persisted { count(to: 1) }"
    digest = hashlib.sha256(text.encode()).hexdigest()
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": digest}}
    async with serving.client() as client:
        await client.subscribe("1", text, extensions=extensions)
        await client.answer("1")

        await client.send({"type": "subscribe", "id": "2", "payload": {"extensions": extensions}})

        assert await client.answer("2") == {"data": {"count": 1}}


async def test_an_error_of_a_field_is_a_response(serving):
    async with serving.client() as client:
        await client.subscribe("q", "{ wrong }")

        answer = await client.answer("q")

    assert answer["data"] is None
    assert answer["errors"][0]["path"] == ["wrong"]


@pytest.mark.parametrize(
    ("expected", "code", "message"),
    [
        ("true", "PROVIDER_UNAVAILABLE", "sim is unavailable: out of order"),
        ("false", "INTERNAL", "Internal server error."),
    ],
)
async def test_events_that_fail_end_the_operation_with_the_error(serving, expected, code, message):
    async with serving.client() as client:
        await client.subscribe("s", f"subscription {{ a: failing(expected: {expected}) }}")

        assert await client.answer("s") == {"data": {"a": 1}}
        (error,) = (await client.of("s"))["payload"]
        assert error["message"] == message
        assert error["path"] == ["a"]
        assert error["extensions"]["code"] == code
        assert await client.alive()


async def test_an_id_in_use_closes_whatever_uses_it(serving):
    async with serving.client() as client:
        await client.subscribe("dup", "{ slow(seconds: 60) }")
        await client.subscribe("dup", "{ hello }")

        assert await client.closed() == (4409, "Subscriber for dup already exists")


async def test_a_completed_operation_sends_nothing_more_and_cleans_up(serving):
    running = serving.stage.running
    async with serving.client() as client:
        await client.subscribe("s", LONG)
        await client.answer("s")

        await client.complete("s")
        await client.subscribe("s", "{ hello }")
        answers = [await client.of("s")]
        while answers[-1]["type"] != "complete":
            answers.append(await client.of("s"))

        assert answers[-2]["payload"] == {"data": {"hello": "hello world"}}
        await until(lambda: serving.stage.running == running)
        assert await client.alive()


async def test_a_completed_query_is_cancelled(serving):
    serving.stage.began.clear()
    async with serving.client() as client:
        await client.subscribe("q", "{ slow(seconds: 0.2) }")
        await serving.stage.began.wait()
        await client.complete("q")
        await client.subscribe("later", "{ slow(seconds: 0.4) }")

        assert (await client.receive())["id"] == "later"


async def test_completing_what_is_unknown_is_ignored(serving):
    async with serving.client() as client:
        await client.complete("never")

        assert await client.alive()


async def test_a_slow_query_holds_nothing_up(serving):
    async with serving.client() as client:
        await client.subscribe("slow", "{ slow(seconds: 60) }")
        await client.subscribe("fast", "{ hello }")

        assert (await client.receive())["id"] == "fast"


async def test_more_operations_than_allowed_are_refused_one_by_one(serving):
    async with serving.client() as client:
        for number in range(6):
            await client.subscribe(f"{number}", TICKS)

        refused = await client.of("5")

        assert refused["type"] == "error"
        assert refused["payload"][0]["extensions"]["code"] == "COST_EXCEEDED"
        assert await client.alive()


async def test_when_a_client_leaves_its_generators_are_closed(serving):
    running = serving.stage.running
    async with serving.client() as client:
        await client.subscribe("s", LONG)
        await client.answer("s")
        assert serving.stage.running == running + 1

    await until(lambda: serving.stage.running == running)


@pytest.mark.parametrize("ws", ["frames", "asgi"])
async def test_an_init_that_does_not_come_in_time_closes(ws):
    options = {} if ws == "frames" else {"ws": "websockets-sansio"}
    async with (
        served(LiveLimits(init_timeout=2), **options) as serving,
        serving.client() as client,
        serving.socket() as silent,
    ):
        with suppress(ConnectionClosed):
            await silent.send({"type": "ping"})

        assert await silent.closed() == (4408, "Connection initialisation timeout")
        assert await client.alive()


async def test_a_client_that_may_not_connect_is_closed():
    async def greet(caller: Caller, payload: dict[str, Any] | None) -> Caller:
        if payload != {"token": "good"}:
            raise ConnectionForbidden("no")
        return caller

    async with served(greet=greet) as serving:
        async with serving.socket() as stranger:
            await stranger.send({"type": "connection_init", "payload": {"token": "bad"}})

            assert await stranger.closed() == (4403, "Forbidden")
        async with serving.socket() as friend:
            await friend.init({"token": "good"})


async def test_a_silent_client_is_pinged_and_without_a_pong_closed():
    limits = LiveLimits(ping_interval=0.1, pong_timeout=2)
    async with served(limits) as serving, serving.client() as client:
        for _ in range(3):
            assert await client.receive() == {"type": "ping"}
            await client.send({"type": "pong"})

        assert await client.closed() == (1013, "No pong in time")


async def test_a_message_in_endless_fragments_is_cut_off():
    async def fragments() -> AsyncIterator[str]:
        yield "{"
        while True:
            yield ""
            await asyncio.sleep(0)

    async with served() as serving, serving.client() as client:
        sending = asyncio.create_task(client.connection.send(fragments()))

        assert (await client.closed())[0] == 1009
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_other_paths_have_no_socket(serving):
    with pytest.raises(InvalidStatus) as refused:
        await connect(serving.url.replace("http", "ws", 1) + "/more")

    assert refused.value.response.status_code == 403
