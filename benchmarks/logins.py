"""How many can sign in: logins a second, and what a warm query of others waits meanwhile.

    python -m benchmarks.logins

In process, so that nothing but the server's own work is measured. The limit is the hash itself, as
many at once as the server computes, with nothing around it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import orjson
import uvloop
from argon2 import PasswordHasher
from starlette.types import Scope

from benchmarks.door import PASSWORD, access_token, answer, opened, scope_of
from web.graphql_http import GraphQLEndpoint

AT_ONCE = 2
LOGINS = 48
CLIENTS = (1, 2, 8, 48)
LOGIN = """mutation L($input: LoginInput!) {
  login(input: $input) { __typename ... on SignedIn { accessToken } }
}"""


def remote(length: int) -> Scope:
    return scope_of("203.0.113.7", b"bars.example", length=length)


async def signed_in(endpoint: GraphQLEndpoint, name: str, expected: str) -> float:
    """Return the seconds that one login as *name* takes."""
    variables = {"input": {"username": name, "password": PASSWORD.get_secret_value()}}
    body = orjson.dumps({"query": LOGIN, "variables": variables})
    started = time.perf_counter()
    told = orjson.loads(await answer(endpoint, partial(remote, len(body)), body))
    assert told.get("data", {}).get("login", {}).get("__typename") == expected, told
    return time.perf_counter() - started


async def many(clients: int, login: Callable[[], Awaitable[float]]) -> tuple[float, list[float]]:
    """Return how many logins a second *clients* get, and what each of them takes."""
    times: list[float] = []

    async def client() -> None:
        times.extend([await login() for _ in range(LOGINS // clients)])

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return len(times) / (time.perf_counter() - started), times


def bare() -> float:
    """Return how many hashes a second are verified, with nothing around."""
    hasher = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1)
    stored = hasher.hash(PASSWORD.get_secret_value())
    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(lambda _: hasher.verify(stored, PASSWORD.get_secret_value()), [0] * 24))
    return 24 / (time.perf_counter() - started)


async def waits(endpoint: GraphQLEndpoint) -> float:
    """Return the milliseconds that one warm query of 1,000 candles takes."""
    started = time.perf_counter()
    await answer(endpoint, lambda: scope_of("203.0.113.8", b"bars.example"))
    return (time.perf_counter() - started) * 1000


async def queries_until(done: asyncio.Event, endpoint: GraphQLEndpoint) -> list[float]:
    found = []
    while not done.is_set():
        found.append(await waits(endpoint))
        await asyncio.sleep(0.002)
    return found


async def main() -> None:
    async with opened() as (endpoint, identity):
        await access_token(identity)
        alone = [await waits(endpoint) for _ in range(500)][100:]
        limit = bare()
        print(f"the hash alone, {AT_ONCE} at once: {limit:.1f} a second\n")
        print("| | clients | a second | of the limit | p50, ms | slowest, ms |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        kinds = {"right": ("bench", "SignedIn"), "unknown name": ("nobody", "LoginFailed")}
        for kind, (name, expected) in kinds.items():
            for clients in CLIENTS:
                login = partial(signed_in, endpoint, name, expected)
                rate, times = await many(clients, login)
                print(
                    f"| {kind} | {clients} | {rate:.1f} | {rate / limit:.0%} "
                    f"| {median(times) * 1000:.0f} | {max(times) * 1000:.0f} |"
                )
        done = asyncio.Event()
        asking = asyncio.create_task(queries_until(done, endpoint))
        await many(48, partial(signed_in, endpoint, "bench", "SignedIn"))
        done.set()
        for words, found in (("alone", alone), ("while 48 sign in", await asking)):
            found.sort()
            p99 = found[int(len(found) * 0.99)]
            print(f"\na warm query {words}: p50 {median(found):.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
