"""Who may connect: origins, and caps for an address and for the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from graphql import GraphQLSchema
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus

from db.embedded.servers import EmbeddedServers
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.web.live.stage import PATIENCE, TICKS, Serving, served, until
from web.limits.cost import Costs
from web.limits.gate import Gate
from web.limits.leases import RateLimits
from web.limits.proxies import Proxies
from web.limits.rates import Group, Rate, Rates
from web.limits.windows import RedisWindows
from web.live.limits import LiveLimits
from web.live.origin import Origins
from web.redis_connections import redis_client


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "a.example", True),
        ("https://a.example", "a.example", True),
        ("https://a.example", "a.example:443", True),
        ("http://a.example:80", "a.example", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("https://A.example", "a.EXAMPLE", True),
        ("https://app.example", "a.example", True),
        ("https://app.example", None, True),
        ("https://b.example", "a.example", False),
        ("https://a.example:8443", "a.example", False),
        ("http://app.example", "a.example", False),
        ("https://a.example.evil.example", "a.example", False),
        ("https://a.example", None, False),
        ("null", "a.example", False),
        ("null", "null", False),
        ("", "", False),
        ("file://", "a.example", False),
        ("https://[", "a.example", False),
        ("https://a.example:99999", "a.example", False),
    ],
)
def test_pages_of_our_own_and_of_named_origins_may_connect(origin, host, allowed):
    assert Origins(["https://app.example/"]).allows(origin, host) is allowed


@given(st.text(), st.text())
def test_any_origin_is_answered(origin, host):
    assert Origins().allows(origin, host) in {True, False}


async def refusal(serving: Serving, **options: object) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refused:
        async with serving.socket(**options):
            pass
    return refused.value


async def test_a_page_of_another_origin_is_refused_at_the_handshake():
    async with served(origins=["https://app.example"]) as serving:
        refused = await refusal(serving, origin="https://evil.example")
        async with serving.client(origin="https://app.example") as friend:
            assert await friend.alive()
        async with serving.client(origin=f"http://{serving.host}:{serving.port}") as own:
            assert await own.alive()

    assert refused.response.status_code == 403
    assert b"FORBIDDEN" in refused.response.body


async def test_a_page_of_another_origin_gets_no_stream():
    async with served() as serving, serving.http() as http:
        answer = await http.get(
            "/graphql",
            params={"query": TICKS},
            headers={"accept": "text/event-stream", "origin": "https://evil.example"},
        )

    assert answer.status_code == 403


@pytest.mark.parametrize(
    "limits", [LiveLimits(connections=2), LiveLimits(connections_per_address=2)]
)
async def test_more_connections_than_allowed_are_refused_until_one_leaves(limits):
    async with served(limits) as serving, serving.client(), serving.http() as http:
        async with serving.client():
            refused = await refusal(serving)
            stream = await http.post(
                "/graphql", json={"query": TICKS}, headers={"accept": "text/event-stream"}
            )
            assert refused.response.status_code == stream.status_code == 429
            assert refused.response.headers["retry-after"] == "5"

        await until(lambda: serving.stage.counts.frames.connections == 1)
        async with serving.client() as next_one:
            assert await next_one.alive()


async def test_a_stream_is_a_connection():
    async with served(LiveLimits(connections=1)) as serving, serving.http() as http:
        async with http.stream(
            "POST", "/graphql", json={"query": TICKS}, headers={"accept": "text/event-stream"}
        ):
            assert (await refusal(serving)).response.status_code == 429
        await until(lambda: serving.stage.counts.sse.connections == 0)
        async with serving.client() as client:
            assert await client.alive()


REMOTE = {"x-forwarded-for": "203.0.113.7"}


@asynccontextmanager
async def counting_in(
    proxy: CuttingProxy, *, sockets: int
) -> AsyncIterator[Callable[[GraphQLSchema], Gate]]:
    """What makes a gate that lets an address open so many *sockets* a minute.

    It waits for Redis behind *proxy* as long as a test waits for anything.
    """
    async with redis_client(proxy.url, connections=4, seconds=PATIENCE) as redis:
        rates = Rates(address={Group.SOCKETS: Rate(sockets)}, user={}, account={})
        windows = RedisWindows(redis, prefix=f"bargraph-test-{uuid4().hex}:rates")
        limits = RateLimits(rates, windows, patience=PATIENCE)

        def made(schema: GraphQLSchema) -> Gate:
            costs = Costs(schema, available=1_000, max_bars=1_000)
            return Gate(limits, costs, proxies=Proxies(["127.0.0.1"]), seconds=PATIENCE)

        yield made


@pytest.fixture
async def proxy(embedded: EmbeddedServers, tmp_path: Path) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(embedded.redis_url, tmp_path / "redis.sock") as proxy:
        yield proxy


@pytest.mark.parametrize(
    "limits", [LiveLimits(connections=2), LiveLimits(connections_per_address=2)]
)
async def test_of_many_that_connect_at_once_no_more_get_in_than_may(limits, proxy):
    leaving = asyncio.Event()
    refused: list[InvalidStatus] = []
    entered: list[bool] = []

    async def connect(serving: Serving) -> None:
        try:
            async with serving.client(additional_headers=REMOTE) as client:
                entered.append(await client.alive())
                await leaving.wait()
        except InvalidStatus as refusal:
            refused.append(refusal)

    async with counting_in(proxy, sockets=1_000) as gate, served(limits, gate=gate) as serving:
        proxy.stall()
        async with asyncio.TaskGroup() as clients:
            for _ in range(12):
                clients.create_task(connect(serving))
            await until(lambda: proxy.connections > 0)
            proxy.flow()
            await until(lambda: len(refused) + len(entered) == 12)
            assert serving.stage.counts.frames.connections == len(entered)
            leaving.set()

    assert len(entered) == 2
    assert {refusal.response.status_code for refusal in refused} == {429}


async def test_whoever_came_too_often_takes_no_place(proxy):
    limits = LiveLimits(connections_per_address=1)
    async with counting_in(proxy, sockets=1) as gate, served(limits, gate=gate) as serving:
        async with serving.client(additional_headers=REMOTE) as client:
            assert await client.alive()
        await until(lambda: serving.stage.counts.frames.connections == 0)

        bodies = [
            (await refusal(serving, additional_headers=REMOTE)).response.body for _ in range(2)
        ]

    assert not any(b"live connections" in body for body in bodies)
    assert all(b"RATE_LIMITED" in body for body in bodies)


async def test_whoever_waits_to_get_in_when_the_server_goes_away_is_told_so(proxy):
    async with counting_in(proxy, sockets=10) as gate, served(gate=gate) as serving:
        proxy.stall()
        waiting = asyncio.create_task(refusal(serving, additional_headers=REMOTE))
        await until(lambda: proxy.connections > 0)
        draining = asyncio.create_task(serving.stage.live.drain(PATIENCE))
        later = await refusal(serving, additional_headers=REMOTE)
        proxy.flow()

        refused = await waiting
        await draining

    assert later.response.status_code == refused.response.status_code == 503
    assert b"GOING_AWAY" in refused.response.body
