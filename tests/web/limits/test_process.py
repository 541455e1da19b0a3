"""A server as it is really run believes no header about who calls, unless it was told whom."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from db.embedded.servers import EmbeddedServers
from db.encryption import key_text, new_key
from tests.conftest import scratch_database
from tests.web.serving import refused, serving, start

Ask = Callable[..., int]


@contextmanager
def asking(embedded: EmbeddedServers, folder: Path, **settings: object) -> Iterator[Ask]:
    with scratch_database(embedded.postgres_url) as url:
        process = start(
            folder,
            database_url=url,
            redis_url=embedded.redis_url,
            redis_prefix=f"bargraph-test-{uuid4().hex}:",
            rate_queries=2,
            **settings,
        )
        try:
            served = serving(process)
            with httpx.Client(base_url=served.url) as client:

                def ask(**headers: str) -> int:
                    body = {"query": "{ markets { name } }"}
                    sent = {name.replace("_", "-"): value for name, value in headers.items()}
                    return client.post("/graphql", json=body, headers=sent).status_code

                yield ask
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def test_a_forged_address_is_no_other_caller(embedded: EmbeddedServers, tmp_path: Path) -> None:
    with asking(embedded, tmp_path) as ask:
        forged = [ask(x_forwarded_for=f"198.51.100.{n}") for n in range(4)]
        here = [ask() for _ in range(4)]

    assert forged == [200, 200, 429, 429]
    assert here == [200] * 4


def test_a_proxy_that_was_named_is_believed(embedded: EmbeddedServers, tmp_path: Path) -> None:
    secure = {
        "env": "production",
        "public_url": "https://bars.example",
        "encryption_keys": key_text(new_key()),
        "token_keys": key_text(new_key()),
        "registration": "closed",
    }
    with asking(embedded, tmp_path, trusted_proxies="127.0.0.1,::1", **secure) as ask:
        several = [ask(x_forwarded_for=f"198.51.100.{n}") for n in range(4)]
        one = [ask(x_forwarded_for=f"198.51.100.{n}, 203.0.113.7") for n in range(4)]

    assert several == [200] * 4
    assert one == [200, 200, 429, 429]


@pytest.mark.parametrize(
    ("name", "value"),
    [("redis_url", "redis://cache.example"), ("allowed_origins", "http://app.example")],
)
def test_production_does_not_start_without_care(tmp_path: Path, name: str, value: str) -> None:
    ended = refused(tmp_path, env="production", **{name: value})

    assert ended.returncode == 1
    assert name.upper() in ended.stderr
    assert ended.stderr.count("\n") == 1
