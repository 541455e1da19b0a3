"""Pages of other origins: which may ask and read, over every transport, as browsers do it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from db.embedded.servers import EmbeddedServers
from tests.web.doors import EVENTS, Door, opened

pytestmark = pytest.mark.asyncio(loop_scope="session")

FRIEND, OTHER_FRIEND = "https://app.example", "http://localhost:5173"
STRANGERS = (
    "https://evil.example",
    "http://app.example",  # another scheme
    "https://app.example:8443",
    "https://app.example.evil.example",
    "https://evil-app.example",
    "null",
)
MARKETS = {"query": "{ markets { name } }"}
MULTIPART = {"accept": 'multipart/mixed;subscriptionSpec="1.0", application/json'}
SENT = "authorization,content-type,x-csrf-token,x-requested-with,apollo-require-preflight"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door(embedded: EmbeddedServers, door_url: str) -> AsyncIterator[Door]:
    async with opened(embedded, door_url, allowed_origins=(FRIEND, OTHER_FRIEND)) as door:
        yield door


async def preflight(
    door: Door, origin: str, *, method: str = "POST", headers: str = SENT
) -> httpx.Response:
    asked = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": headers,
    }
    async with door.serving.http() as http:
        return await http.options("/graphql", headers=asked)


async def ask(door: Door, method: str, headers: Mapping[str, str]) -> httpx.Response:
    async with door.serving.http() as http:
        if method == "GET":
            return await http.get("/graphql", params=MARKETS, headers=headers)
        return await http.post("/graphql", json=MARKETS, headers=headers)


@pytest.mark.parametrize("origin", [FRIEND, OTHER_FRIEND])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_page_that_was_named_is_let_ask_and_need_not_ask_again_for_hours(
    door: Door, origin: str, method: str
) -> None:
    answer = await preflight(door, origin, method=method)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert set(SENT.split(",")) <= set(
        answer.headers["access-control-allow-headers"].lower().split(", ")
    )
    assert int(answer.headers["access-control-max-age"]) >= 3600
    assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("origin", STRANGERS)
async def test_another_page_is_not(door: Door, origin: str) -> None:
    before = await preflight(door, origin)
    read = await ask(door, "POST", {"origin": origin})

    assert before.status_code == 400
    for answer in (before, read):
        assert "access-control-allow-origin" not in answer.headers
        assert "origin" in answer.headers["vary"].lower()


async def test_a_named_page_may_not_send_just_anything(door: Door) -> None:
    method = await preflight(door, FRIEND, method="DELETE")
    header = await preflight(door, FRIEND, headers="x-strange")

    assert (method.status_code, header.status_code) == (400, 400)


@pytest.mark.parametrize("accepts", [{}, EVENTS, MULTIPART], ids=["json", "events", "multipart"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_named_page_reads_the_answer_over_every_transport(
    door: Door, method: str, accepts: dict[str, str]
) -> None:
    answer = await ask(door, method, {**accepts, "origin": FRIEND})

    assert answer.status_code == 200
    assert "markets" in answer.text
    assert answer.headers["access-control-allow-origin"] == FRIEND
    assert answer.headers["access-control-allow-credentials"] == "true"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"retry-after", "x-request-id"} <= set(exposed)
    assert "origin" in answer.headers["vary"].lower()


async def test_a_refusal_is_read_like_an_answer(door: Door) -> None:
    answer = await door.post("{ me { id } }", headers={"origin": FRIEND}, token="nonsense")

    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == FRIEND


async def test_caches_are_told_that_answers_differ_also_where_nobody_says_an_origin(
    door: Door,
) -> None:
    answer = await ask(door, "GET", {})

    assert "origin" in answer.headers["vary"].lower()
    assert "access-control-allow-origin" not in answer.headers


async def test_a_socket_opens_for_named_pages_and_our_own_and_no_others(door: Door) -> None:
    host = f"{door.serving.host}:{door.serving.port}"
    for origin in (FRIEND, OTHER_FRIEND, f"http://{host}", None):
        async with door.serving.client(origin=origin) as client:
            assert await client.alive()

    for origin in STRANGERS:
        with pytest.raises(InvalidStatus) as refused:
            async with door.serving.socket(origin=origin):
                pass
        assert refused.value.response.status_code == 403
