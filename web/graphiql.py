"""Serve the built GraphiQL page under a content security policy that knows no other origin.

`make frontend` writes the bundle: `graphiql.html` and, under `assets/`, files whose names carry a
hash of their content, the larger ones beside a gzipped copy. All of them are answered with the same
policy, because a worker obeys the policy of its own response and not that of its page.
"""

import re
from os import stat_result
from pathlib import Path
from stat import S_ISREG

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

# Inline *styles* stay allowed: Monaco positions every line with style attributes and writes its
# themes into <style>. Its icon font and GraphiQL's own sit in the style sheets as data: URLs.
# 'self' covers ws: and wss: on the same host and port.
POLICY = (
    "default-src 'none'; "
    "script-src 'self'; "
    "style-src 'self' 'unsafe-inline'; "
    "worker-src 'self'; "
    "connect-src 'self'; "
    "img-src 'self' data:; "
    "font-src 'self' data:; "
    "frame-ancestors 'none'; "
    "base-uri 'none'; "
    "form-action 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # Not no-referrer, with which a browser may send `Origin: null`: the API would call it foreign.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

# Spelt out, because else the machine's own mime.types decides, and `nosniff` makes a slip fatal.
MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
}

NOT_BUILT = (
    "GraphiQL is not built yet. Run `make frontend`, then reload this page.\n"
    "The API itself is ready at /graphql.\n"
)


def graphiql_routes(bundle: Path) -> list[BaseRoute]:
    """Return the routes `/graphiql` and `/graphiql/assets/...` over the folder *bundle*.

    The bundle may appear or be replaced while the server runs; where it is absent the page answers
    503 and says what to run.
    """

    async def page(request: Request) -> Response:
        found = await _answer(bundle / "graphiql.html", request, cache_control="no-cache")
        return found or PlainTextResponse(
            NOT_BUILT, 503, headers=SECURITY_HEADERS | {"cache-control": "no-store"}
        )

    async def asset(request: Request) -> Response:
        # The route matches a single path segment, so a name can never climb out of the folder.
        found = await _answer(
            bundle / "assets" / request.path_params["name"],
            request,
            cache_control="public, max-age=31536000, immutable",
        )
        return found or PlainTextResponse("Not Found", 404, headers=SECURITY_HEADERS)

    return [
        Route("/graphiql", page, methods=["GET"], name="graphiql"),
        Route("/graphiql/assets/{name}", asset, methods=["GET"], name="graphiql_asset"),
    ]


async def _answer(path: Path, request: Request, *, cache_control: str) -> Response | None:
    """Return the file at *path*, as its gzipped copy where there is one and the client takes it.

    None where there is no such file, or none of a kind that a bundle holds.
    """
    media_type = MEDIA_TYPES.get(path.suffix)
    if media_type is None:
        return None
    headers = SECURITY_HEADERS | {"cache-control": cache_control, "vary": "Accept-Encoding"}
    copy = path.with_name(path.name + ".gz")
    if _accepts_gzip(request.headers) and (stat := await to_thread.run_sync(_stat, copy)):
        path, headers = copy, headers | {"content-encoding": "gzip"}
    elif not (stat := await to_thread.run_sync(_stat, path)):
        return None
    response = FileResponse(path, headers=headers, media_type=media_type, stat_result=stat)
    if response.headers["etag"] in _known_etags(request.headers):
        del response.headers["content-length"]
        return Response(status_code=304, headers=response.headers)
    return response


def _stat(path: Path) -> stat_result | None:
    try:
        found = path.stat()
    except (OSError, ValueError):  # absent; a name too long; a name with a zero byte
        return None
    return found if S_ISREG(found.st_mode) else None


def _accepts_gzip(headers: Headers) -> bool:
    for choice in headers.get("accept-encoding", "").split(","):
        coding, _, weight = choice.partition(";")
        if coding.strip().lower() == "gzip":
            return re.fullmatch(r"\s*q=0(\.0*)?\s*", weight) is None
    return False


def _known_etags(headers: Headers) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
