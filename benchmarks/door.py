"""What auth, limits and cost add to a warm query of 1,000 candles: one server, with and without.

    python -m benchmarks.door

In process, so that nothing but the server's own work is measured. CPU of one request, least and
median of many short rounds; the share is the median of those within one round, since machines are
faster in one moment than in another. `remote` is a caller whose rate is counted, `local` one whose
is not, `user` a remote one who shows an access token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import orjson
import uvloop
from pydantic import SecretStr
from starlette.types import Message, Scope

from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin
from resolvers.identity.registering import Wanted, create_admin
from resolvers.identity.signing_in import login
from web.app import build_app
from web.bootstrap import wire
from web.clock import SystemClock
from web.graphql_http import GraphQLEndpoint
from web.meter import ChainMeter
from web.metrics import Metrics
from web.settings import Settings

ROUNDS = 300
REQUESTS = 40
QUERY = """query Q($last: Int, $until: Timestamp) {
  candles(
    series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1m"}, last: $last, until: $until
  ) { candles { time open high low close volume } }
}"""
PASSWORD = SecretStr("not a secret, but long")
UNTIL = 1_760_000_000_000
BODY = orjson.dumps({"query": QUERY, "variables": {"last": 1_000, "until": UNTIL}})


def scope_of(peer: str, host: bytes, *more: tuple[bytes, bytes], length: int = len(BODY)) -> Scope:
    """Return a request with a body of *length* bytes, as a load generator sends it."""
    headers = [
        (b"host", host),
        (b"user-agent", b"load"),
        (b"accept", b"*/*"),
        (b"connection", b"keep-alive"),
        (b"content-length", str(length).encode()),
        (b"content-type", b"application/json"),
        *more,
    ]
    return {
        "type": "http",
        "method": "POST",
        "path": "/graphql",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "client": (peer, 50_000),
        "server": ("127.0.0.1", 8000),
        "headers": headers,
    }


async def answer(
    endpoint: GraphQLEndpoint, make: Callable[[], Scope], asked: bytes = BODY
) -> bytes:
    """Return the body that *endpoint* answers to one with the body *asked*."""
    sent: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": asked, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    await endpoint(make(), receive, send)
    return b"".join(sent)


async def microseconds(endpoint: GraphQLEndpoint, make: Callable[[], Scope]) -> float:
    started = process_time()
    for _ in range(REQUESTS):
        await answer(endpoint, make)
    return (process_time() - started) / REQUESTS * 1e6


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[GraphQLEndpoint, Identity]]:
    """Yield the endpoint of a server on embedded stores, with rates that nobody reaches."""
    metrics = Metrics()
    with TemporaryDirectory() as folder:
        settings = Settings(
            _env_file=None,
            data_dir=Path(folder),
            ccxt_exchanges=(),
            rate_queries=1_000_000,
            rate_mutations=1_000_000,
            rate_logins=1_000_000,
        )
        async with wire(settings, clock=SystemClock(), meter=ChainMeter(metrics)) as wired:
            app = build_app(wired, metrics)
            endpoint = next(r.app for r in app.routes if getattr(r, "path", "") == "/graphql")
            yield endpoint, wired.shared.identity


async def access_token(identity: Identity) -> str:
    """Return what a new user shows."""
    user = await create_admin(identity, Wanted("bench", "bench@example.com", PASSWORD))
    signed_in = await login(identity, user.username, PASSWORD, code=None, origin=Origin())
    return signed_in.access.text.get_secret_value()


async def main() -> None:
    async with opened() as (endpoint, identity):
        await measure(endpoint, await access_token(identity))


async def measure(endpoint: GraphQLEndpoint, token: str) -> None:
    def remote() -> Scope:
        return scope_of("203.0.113.7", b"bars.example")

    def local() -> Scope:
        return scope_of("127.0.0.1", b"127.0.0.1:8000")

    def user() -> Scope:
        shown = (b"authorization", b"Bearer " + token.encode())
        return scope_of("203.0.113.7", b"bars.example", shown)

    # Nobody but this may leave the door open.
    shut = endpoint._gate, endpoint._door  # noqa: SLF001
    first = orjson.loads(await answer(endpoint, remote))
    assert len(first["data"]["candles"]["candles"]) == 1_000
    kinds = {
        "without": ((None, None), remote),
        "remote": (shut, remote),
        "local": (shut, local),
        "user": (shut, user),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, (door, make) in kinds.items():
            endpoint._gate, endpoint._door = door  # noqa: SLF001
            found[name].append(await microseconds(endpoint, make))
    for name, times in found.items():
        pairs = zip(times, found["without"], strict=True)
        share = median(time / bare for time, bare in pairs) - 1
        print(f"{name:8} least {min(times):6.1f} us, median {median(times):6.1f} us  {share:+.1%}")


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
