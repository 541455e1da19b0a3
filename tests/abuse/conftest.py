"""Two servers: one as it comes, and one as it should face the world."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from db.embedded.servers import EmbeddedServers
from tests.abuse.target import Target, running


@pytest.fixture(scope="package")
def development(
    embedded: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """A server with the settings it has by default."""
    with running(embedded, tmp_path_factory.mktemp("development")) as target:
        yield target


@pytest.fixture(scope="package")
def production(
    embedded: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """A server that faces the world and tells nothing of its schema."""
    folder = tmp_path_factory.mktemp("production")
    told = {
        "env": "production",
        "introspection": False,
        "graphiql": False,
        "registration": "closed",
        "public_url": "https://bars.example",
        "allowed_origins": "https://app.example",
    }
    with running(embedded, folder, **told) as target:
        yield target


@pytest.fixture
async def target(production: Target) -> AsyncIterator[Target]:
    """The server that faces the world; it answers afterwards, and found no bug in itself."""
    known = len(production.complaints())
    yield production
    assert await production.answers()
    assert production.complaints()[known:] == []
