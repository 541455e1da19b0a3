"""Automatic persisted queries: a client sends a document's SHA-256 in place of its text.

The protocol is Apollo's. Every text is kept in Redis, shared by all processes, behind a bounded
cache in this one; without Redis the cache alone goes on. A text is checked against its digest
whenever it is read back, so nothing that writes to Redis can make a digest mean another document.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from market.lru import LRU
from web.graphql_request import BadRequest, GraphQLRequest, RequestRefused

logger = logging.getLogger(__name__)

SHA256 = re.compile(r"[0-9a-f]{64}")


class PersistedQueryNotFound(RequestRefused):
    """A digest nobody knows. Clients answer it by sending the text, so it is no failure: 200."""

    code = "PERSISTED_QUERY_NOT_FOUND"
    status: ClassVar[int] = 200

    def __init__(self) -> None:
        # Apollo's clients compare this message.
        super().__init__("PersistedQueryNotFound")


def requested_digest(extensions: Mapping[str, Any] | None) -> str | None:
    """Return the SHA-256 that a request's *extensions* name. Raises `BadRequest`."""
    persisted = (extensions or {}).get("persistedQuery")
    if persisted is None:
        return None
    if not isinstance(persisted, dict) or persisted.get("version") != 1:
        raise BadRequest("Unsupported persisted query version: only version 1 is.")
    digest = persisted.get("sha256Hash")
    if not isinstance(digest, str) or not SHA256.fullmatch(digest):
        raise BadRequest("`sha256Hash` must be a SHA-256 in 64 lower-case hexadecimal digits.")
    return digest


class KnownDocuments(Protocol):
    """Which document a request means."""

    async def resolve(self, asked: GraphQLRequest) -> tuple[str, str | None]:
        """Return the text that *asked* means, and the digest to register it by if it is valid."""

    async def register(self, digest: str, text: str) -> None:
        """Keep *text*, whose SHA-256 is *digest*, for later requests."""


class PersistedQueries:
    """The documents that clients have registered by their SHA-256.

    Keys in Redis are *prefix* and the digest; they live for *ttl* after their last use there.
    Redis is given *patience* seconds to answer. In this process at most *max_count* texts of
    *max_length* characters together are kept.
    """

    def __init__(
        self,
        redis: Redis | None,
        *,
        prefix: str,
        ttl: timedelta = timedelta(days=7),
        patience: float = 0.25,
        max_count: int = 1_000,
        max_length: int = 1_000_000,
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._ttl = ttl
        self._patience = patience
        self._texts: LRU[str, str] = LRU(max_count=max_count, max_weight=max_length)
        self._redis_answers = True

    async def resolve(self, asked: GraphQLRequest) -> tuple[str, str | None]:
        """Return the text that *asked* means, and the digest to register it by if it is valid.

        Raises `PersistedQueryNotFound`, and `BadRequest` where there is neither text nor digest or
        where they do not belong together.
        """
        digest = requested_digest(asked.extensions)
        if asked.query is not None:
            if digest is not None and digest != _sha256(asked.query):
                raise BadRequest("The provided sha256Hash does not match the query.")
            return asked.query, digest
        if digest is None:
            raise BadRequest("Must provide a `query`.")
        return await self.find(digest), None

    async def find(self, digest: str) -> str:
        """Return the text registered under *digest*. Raises `PersistedQueryNotFound`."""
        text = self._texts.get(digest) or await self._read(digest)
        if text is None:
            raise PersistedQueryNotFound
        return text

    async def register(self, digest: str, text: str) -> None:
        """Keep *text*, whose SHA-256 is *digest*, for every process."""
        if self._texts.get(digest) is not None:
            return
        self._texts.put(digest, text, weight=len(text))
        if self._redis is not None:
            try:
                async with asyncio.timeout(self._patience):
                    await self._redis.set(self._prefix + digest, text, ex=self._ttl)
            except (RedisError, OSError) as error:
                self._note(error)
            else:
                self._note(None)

    async def _read(self, digest: str) -> str | None:
        if self._redis is None:
            return None
        try:
            async with asyncio.timeout(self._patience):
                found = await self._redis.getex(self._prefix + digest, ex=self._ttl)
        except (RedisError, OSError) as error:
            self._note(error)
            return None
        self._note(None)
        text = found.decode(errors="replace") if isinstance(found, bytes) else found
        if text is None or _sha256(text) != digest:
            return None
        self._texts.put(digest, text, weight=len(text))
        return text

    def _note(self, error: Exception | None) -> None:
        """Log that Redis went away or came back, once each."""
        answers = error is None
        if answers != self._redis_answers:
            self._redis_answers = answers
            if answers:
                logger.info("Redis answers again: persisted queries are shared.")
            else:
                logger.warning("Redis is away: persisted queries stay in this process (%r).", error)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
