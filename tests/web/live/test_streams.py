"""Subscriptions over plain HTTP: Server-Sent Events and Apollo's multipart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.web.live.stage import PATIENCE, TICKS, Serving, served, until
from tests.web.live.test_shared import followed
from web.live.framing import MULTIPART, SSE, framing_of
from web.live.limits import LiveLimits

EVENTS = {"accept": "text/event-stream"}
PARTS = {"accept": "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/json"}
COUNT = "subscription { count(to: 2) }"
LONG = "subscription { count(to: 100000, delayMs: 5) }"


def events(text: str) -> list[tuple[str, Any]]:
    """Return the events of an event stream, as `EventSource` reads them."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = dict(line.split(":", 1) for line in lines)
        if fields:
            content = fields["data"].strip()
            found.append((fields["event"].strip(), json.loads(content) if content else None))
    return found


def parts(text: str) -> list[Any]:
    """Return the parts of a whole multipart body but for heartbeats."""
    first, *found, last = text.split("\r\n--graphql")
    assert (first, last) == ("", "--\r\n")
    bodies = []
    for part in found:
        head, _, body = part.partition("\r\n\r\n")
        assert head == "\r\ncontent-type: application/json"
        bodies.append(json.loads(body))
    return [body for body in bodies if body]


class Reading:
    """A response that is read piece by piece."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.text = ""
        self._pieces = response.aiter_text()

    async def until(self, text: str) -> str:
        async with asyncio.timeout(PATIENCE):
            while text not in self.text:
                self.text += await anext(self._pieces)
        return self.text

    async def end(self) -> str:
        async with asyncio.timeout(PATIENCE):
            async for piece in self._pieces:
                self.text += piece
        return self.text


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with served(LiveLimits(heartbeat=0.1)) as serving:
        yield serving


async def asked(serving: Serving, query: str, headers: dict[str, str]) -> httpx.Response:
    async with serving.http() as http:
        return await http.post("/graphql", json={"query": query}, headers=headers)


async def test_a_subscription_is_a_stream_of_events(serving):
    answer = await asked(serving, COUNT, EVENTS)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert events(answer.text) == [
        ("next", {"data": {"count": 1}}),
        ("next", {"data": {"count": 2}}),
        ("complete", None),
    ]


async def test_a_page_subscribes_by_get(serving):
    async with serving.http() as http:
        answer = await http.get("/graphql", params={"query": COUNT}, headers=EVENTS)

    assert len(events(answer.text)) == 3


async def test_what_accepts_events_only_gets_queries_as_events_too(serving):
    answer = await asked(serving, "{ hello }", EVENTS)

    assert events(answer.text) == [
        ("next", {"data": {"hello": "hello world"}}),
        ("complete", None),
    ]


@pytest.mark.parametrize(
    "query", ["{ nope }", "subscription { ticks(of: -1) { number } }", "subscription { failing }"]
)
async def test_errors_are_events(serving, query):
    answer = await asked(serving, query, EVENTS)

    (*_, (kind, payload), end) = events(answer.text)
    assert kind == "next"
    assert payload["errors"][0]["extensions"]["code"]
    assert end == ("complete", None)


async def test_a_mutation_by_get_is_refused(serving):
    async with serving.http() as http:
        answer = await http.get(
            "/graphql", params={"query": "mutation { add(number: 1) }"}, headers=EVENTS
        )

    assert answer.status_code == 405


async def test_what_is_no_request_is_refused_as_ever(serving):
    async with serving.http() as http:
        malformed = await http.post(
            "/graphql", content=b"7", headers={**EVENTS, "content-type": "application/json"}
        )
        wrong = await http.post("/graphql", json={"query": "{ oops"}, headers=EVENTS)

    assert malformed.status_code == wrong.status_code == 400
    assert wrong.json()["errors"][0]["extensions"]["code"] == "GRAPHQL_PARSE_FAILED"


async def test_a_subscription_is_parts_for_apollo(serving):
    answer = await asked(serving, COUNT, PARTS)

    assert answer.headers["content-type"] == (
        'multipart/mixed;boundary="graphql";subscriptionSpec=1.0'
    )
    assert parts(answer.text) == [
        {"payload": {"data": {"count": 1}}},
        {"payload": {"data": {"count": 2}}},
    ]


async def test_errors_are_parts_for_apollo(serving):
    answer = await asked(serving, "subscription { failing }", PARTS)

    first, second = parts(answer.text)
    assert first == {"payload": {"data": {"failing": 1}}}
    assert second["payload"]["errors"][0]["extensions"]["code"] == "PROVIDER_UNAVAILABLE"


async def test_a_query_is_ordinary_json_for_apollo(serving):
    answer = await asked(serving, "{ hello }", PARTS)

    assert answer.json() == {"data": {"hello": "hello world"}}


async def test_a_subscription_that_accepts_no_stream_is_refused(serving):
    answer = await asked(serving, COUNT, {"accept": "application/json"})

    assert answer.status_code == 400
    assert "text/event-stream" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    ("headers", "heartbeat"), [(EVENTS, ":\n\n:\n\n"), (PARTS, "\r\n\r\n{}\r\n--graphql")]
)
async def test_a_silent_stream_has_heartbeats(serving, headers, heartbeat):
    async with (
        serving.http() as http,
        http.stream("POST", "/graphql", json={"query": TICKS}, headers=headers) as response,
    ):
        reading = Reading(response)

        assert heartbeat in await reading.until(heartbeat)


async def test_streams_and_sockets_share_one_execution(serving):
    async with (
        serving.client() as client,
        serving.http() as http,
        http.stream("POST", "/graphql", json={"query": TICKS}, headers=EVENTS) as one,
        http.stream("POST", "/graphql", json={"query": TICKS}, headers=PARTS) as two,
    ):
        await client.subscribe("1", TICKS)
        await followed(serving, 3)

        serving.stage.tape().publish(5)

        body = '{"data":{"ticks":{"number":5,"text":""}}}'
        assert await client.answer("1") == json.loads(body)
        assert f"event: next\ndata: {body}\n\n" in await Reading(one).until(body + "\n\n")
        assert f'{{"payload":{body}}}' in await Reading(two).until(body + "}")
        assert serving.stage.counts.shared_executions == 1
        assert serving.stage.metric("bargraph_live_messages_total", transport="sse") == 1


@pytest.mark.parametrize("headers", [EVENTS, PARTS])
@pytest.mark.parametrize("query", [LONG, TICKS])
async def test_a_client_that_leaves_ends_its_operation(serving, headers, query):
    stage = serving.stage
    async with (
        serving.http() as http,
        http.stream("POST", "/graphql", json={"query": query}, headers=headers),
    ):
        await until(lambda: stage.running == 1 or stage.tape().entered == 1)

    await until(lambda: stage.running == 0 and stage.tape().left == stage.tape().entered)
    await until(lambda: stage.counts.sse.connections + stage.counts.multipart.connections == 0)
    assert stage.counts.groups == 0


@pytest.mark.parametrize("headers", [EVENTS, PARTS])
async def test_going_away_ends_a_stream_without_calling_it_complete(serving, headers):
    async with (
        serving.http() as http,
        http.stream("POST", "/graphql", json={"query": TICKS}, headers=headers) as response,
    ):
        await followed(serving, 1)
        await serving.stage.live.drain(PATIENCE)

        text = await Reading(response).end()
        late = await http.post("/graphql", json={"query": TICKS}, headers=headers)

    if headers is EVENTS:
        assert events(text) == []
    else:
        (last,) = parts(text)
        assert last["payload"] is None
        assert last["errors"][0]["extensions"]["code"] == "GOING_AWAY"
    assert late.status_code == 503
    assert late.json()["errors"][0]["extensions"]["code"] == "GOING_AWAY"


async def test_a_stream_that_is_not_read_is_given_up_and_a_slow_one_gets_the_newest():
    limits = LiveLimits(outbox_count=20, heartbeat=PATIENCE, stall=PATIENCE)
    body = json.dumps({"query": TICKS})
    request = (
        "POST /graphql HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    )
    async with served(limits, send_buffer=4096) as serving:
        # The reader takes little ahead, and the system too.
        reader, writer = await asyncio.open_connection(serving.host, serving.port, limit=1024)
        writer.write(request.encode())
        await followed(serving, 1)
        tape, tally = serving.stage.tape(), serving.stage.counts.sse

        for number in range(400):
            tape.publish(number, "x" * 20_000, passing="bar")
        await until(lambda: serving.stage.counts.shared_executions == 400)
        assert tally.conflated > 0
        assert tally.slow == 0
        for number in range(400):
            tape.publish(number, "x" * 20_000)
        await until(lambda: tally.slow == 1)

        await until(lambda: serving.stage.counts.groups == 0)
        writer.close()
        assert b"text/event-stream" in await reader.read(1000)


@pytest.mark.parametrize(
    ("accept", "framing"),
    [
        ("", None),
        ("*/*", None),
        ("application/json", None),
        ("text/event-stream", SSE),
        ("Text/Event-Stream; charset=utf-8, application/json", SSE),
        ("text/event-stream;q=0", None),
        ("multipart/mixed", None),
        ("multipart/mixed;deferSpec=20220824, application/json", None),
        ('multipart/mixed; boundary="graphql"; subscriptionSpec="1.0", */*', MULTIPART),
        ("multipart/mixed;subscriptionSpec=1.0, text/event-stream", MULTIPART),
    ],
)
def test_the_framing_is_the_first_that_is_accepted(accept, framing):
    assert framing_of(accept) is framing
