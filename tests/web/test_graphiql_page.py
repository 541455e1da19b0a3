"""The GraphiQL page as HTTP sees it: headers, caching, compression, refusals."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from starlette.applications import Starlette

from web.graphiql import graphiql_routes

PAGE = "<!doctype html><title>Bargraph</title>"
SCRIPT = "console.info('bars');" * 100


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "graphiql.html").write_text(PAGE)
    (folder / "assets" / "page-3f2a.js").write_text(SCRIPT)
    (folder / "assets" / "page-3f2a.js.gz").write_bytes(gzip.compress(SCRIPT.encode()))
    (folder / "assets" / "bars-77aa.svg").write_text("<svg/>")
    (tmp_path / "secret.js").write_text("password")
    return folder


@pytest.fixture
async def client(bundle: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=graphiql_routes(bundle))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_page_is_revalidated_and_assets_are_kept_for_a_year(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/graphiql")
    asset = await client.get("/graphiql/assets/bars-77aa.svg")

    assert page.text == PAGE
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert asset.headers["content-type"] == "image/svg+xml"
    assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    "path", ["/graphiql", "/graphiql/assets/page-3f2a.js", "/graphiql/assets/absent.js"]
)
async def test_every_answer_carries_the_policy_because_workers_obey_their_own(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path)

    policy = dict(
        directive.strip().split(" ", 1)
        for directive in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["worker-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"


async def test_a_page_the_browser_already_has_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/graphiql")

    again = await client.get("/graphiql", headers={"if-none-match": f"W/{first.headers['etag']}"})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]


async def test_a_rebuilt_page_is_sent_again(client: httpx.AsyncClient, bundle: Path) -> None:
    first = await client.get("/graphiql")
    (bundle / "graphiql.html").write_text(PAGE + "<p>new")

    again = await client.get("/graphiql", headers={"if-none-match": first.headers["etag"]})

    assert again.status_code == 200
    assert again.text.endswith("<p>new")


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("gzip; q=0", None),
        ("gzip;q=0.000", None),
        ("identity", None),
        ("br", None),
    ],
)
async def test_gzipped_copy_is_sent_only_to_those_who_take_it(
    client: httpx.AsyncClient, accepted: str, encoding: str | None
) -> None:
    answer = await client.get(
        "/graphiql/assets/page-3f2a.js", headers={"accept-encoding": accepted}
    )

    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.text == SCRIPT


async def test_gzipped_and_plain_copies_differ_in_etag(client: httpx.AsyncClient) -> None:
    path = "/graphiql/assets/page-3f2a.js"

    plain = await client.get(path, headers={"accept-encoding": "identity"})
    zipped = await client.get(path, headers={"accept-encoding": "gzip"})

    assert plain.headers["etag"] != zipped.headers["etag"]


async def test_a_file_without_a_copy_is_sent_plain(client: httpx.AsyncClient) -> None:
    answer = await client.get("/graphiql/assets/bars-77aa.svg", headers={"accept-encoding": "gzip"})

    assert "content-encoding" not in answer.headers
    assert answer.text == "<svg/>"


@pytest.mark.parametrize(
    "name",
    [
        "absent.js",
        "..",
        "../graphiql.html",
        "../../secret.js",
        "..%2F..%2Fsecret.js",
        "%2e%2e/%2e%2e/secret.js",
        "..%5C..%5Csecret.js",
        "%2Fetc%2Fpasswd",
        "page-3f2a.js%00.js",
        "page-3f2a.js.gz",
        "a" * 4000 + ".js",
    ],
)
async def test_names_outside_the_bundle_are_not_found(bundle: Path, name: str) -> None:
    app = Starlette(routes=graphiql_routes(bundle))

    status = await _status_of_raw_path(app, f"/graphiql/assets/{name}")

    assert status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/graphiql", "/graphiql/assets/page-3f2a.js"])
async def test_only_reading_is_allowed(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_head_answers_the_headers_of_get_without_its_body(client: httpx.AsyncClient) -> None:
    got = await client.get("/graphiql")

    head = await client.head("/graphiql")

    assert head.content == b""
    assert head.headers == got.headers


async def test_before_the_bundle_is_built_the_page_says_how_to_build_it(
    client: httpx.AsyncClient, bundle: Path
) -> None:
    (bundle / "graphiql.html").rename(bundle / "later.html")
    before = await client.get("/graphiql")
    (bundle / "later.html").rename(bundle / "graphiql.html")
    after = await client.get("/graphiql")

    assert before.status_code == 503
    assert "make frontend" in before.text
    assert before.headers["cache-control"] == "no-store"
    assert after.status_code == 200


async def _status_of_raw_path(app: Starlette, raw_path: str) -> int:
    """Ask for *raw_path* as a server would pass it on; a client would tidy its dots away."""
    sent: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            assert isinstance(message["status"], int)
            sent.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    await app(scope, receive, send)  # type: ignore[arg-type]  # plain dicts are what ASGI passes
    return sent[0]
