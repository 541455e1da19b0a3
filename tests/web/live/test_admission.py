"""Who may connect: origins, and caps for an address and for the process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus

from tests.web.live.stage import TICKS, Serving, served, until
from web.live.limits import LiveLimits
from web.live.origin import Origins


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
