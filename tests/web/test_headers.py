"""Headers around every answer, and who may read answers from another origin."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from web.graphiql import POLICY
from web.headers import middleware

FRIEND, STRANGER = "https://app.example", "https://evil.example"


async def plain(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("said", headers={"retry-after": "5"})


async def page(_request: Request) -> PlainTextResponse:
    headers = {"content-security-policy": POLICY, "vary": "Accept-Encoding"}
    return PlainTextResponse("page", headers=headers)


async def client_of(origins: tuple[str, ...], *, strict: bool) -> httpx.AsyncClient:
    app = Starlette(
        routes=[Route("/", plain, methods=["GET", "POST"]), Route("/page", page)],
        middleware=middleware(origins, strict_transport=strict),
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bargraph")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with await client_of((FRIEND,), strict=False) as client:
        yield client


async def test_every_answer_says_that_it_is_no_page(client: httpx.AsyncClient) -> None:
    for path, status in (("/", 200), ("/nowhere", 404)):
        answer = await client.get(path)

        assert answer.status_code == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "strict-transport-security" not in answer.headers


async def test_a_page_keeps_the_policy_it_has(client: httpx.AsyncClient) -> None:
    answer = await client.get("/page")

    assert answer.headers.get_list("content-security-policy") == [POLICY]
    assert answer.headers["vary"] == "Accept-Encoding, Origin"


async def test_browsers_are_told_to_stay_with_tls_where_asked() -> None:
    async with await client_of((), strict=True) as client:
        answer = await client.get("/")

    assert "max-age" in answer.headers["strict-transport-security"]


def preflight(origin: str, header: str = "content-type") -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": header,
    }


async def test_pages_of_named_origins_may_ask_and_read(client: httpx.AsyncClient) -> None:
    before = await client.options("/", headers=preflight(FRIEND, "authorization,content-type"))
    answer = await client.post("/", headers={"origin": FRIEND})

    for each in (before, answer):
        assert each.status_code == 200
        assert each.headers["access-control-allow-origin"] == FRIEND
        assert each.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-expose-headers"] == "retry-after, x-request-id"
    assert "origin" in answer.headers["vary"].lower()


async def test_pages_of_other_origins_may_not(client: httpx.AsyncClient) -> None:
    before = await client.options("/", headers=preflight(STRANGER))
    answer = await client.post("/", headers={"origin": STRANGER})
    odd = await client.options("/", headers=preflight(FRIEND, "x-strange"))

    assert (before.status_code, odd.status_code) == (400, 400)
    assert "access-control-allow-origin" not in before.headers
    assert "access-control-allow-origin" not in answer.headers


async def test_nobody_is_named_where_no_origin_is() -> None:
    async with await client_of((), strict=False) as client:
        answer = await client.post("/", headers={"origin": FRIEND})

    assert not [name for name in answer.headers if name.startswith("access-control")]
