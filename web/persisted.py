"""Automatic persisted queries: a client sends a document's SHA-256 in place of its text.

The protocol is Apollo's. Every text is kept in Redis, shared by all processes, behind a cache in
this one; without Redis the cache alone goes on. Anybody may register, so all of it is bounded: a
text, those of one caller in a while, all together. A text is checked against its digest whenever it
is read back, so nothing that writes to Redis can make a digest mean another document.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from market.lru import LRU
from resolvers.callers import ANYBODY, Caller
from web.graphql_request import BadRequest, GraphQLRequest, RequestRefused
from web.limits.rates import RateLimited

logger = logging.getLogger(__name__)

SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_BYTES = 32_768
"""Of one text that is kept. A longer one is answered all the same, and sent whole each time."""

# KEYS: the text, the order in which texts came, their bytes together. ARGV: the text, its digest,
# its bytes, the bytes all may have, seconds that a text lasts unused, the prefix of texts.
_KEEP = """
redis.call('set', KEYS[1], ARGV[1], 'ex', ARGV[5])
local time = redis.call('time')
local entry = ARGV[3] .. ' ' .. ARGV[2]
if redis.call('zadd', KEYS[2], time[1] * 1000000 + time[2], entry) == 1 then
  local held = redis.call('incrby', KEYS[3], ARGV[3])
  while held > tonumber(ARGV[4]) do
    local oldest = redis.call('zpopmin', KEYS[2])[1]
    if not oldest then
      redis.call('del', KEYS[3])
      break
    end
    local size, digest = string.match(oldest, '(%d+) (.*)')
    redis.call('del', ARGV[6] .. digest)
    held = redis.call('decrby', KEYS[3], size)
  end
end
redis.call('expire', KEYS[2], ARGV[5])
redis.call('expire', KEYS[3], ARGV[5])
"""


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

    async def register(self, digest: str, text: str, caller: Caller = ANYBODY) -> None:
        """Keep *text*, whose SHA-256 is *digest*, for later requests, if *caller* may have it kept.

        Where it is not kept, nothing is lost: the text is asked for again.
        """


Admit = Callable[[Caller, int], Awaitable[None]]
"""Counts the bytes that a caller wants kept. Raises `RateLimited`."""


class PersistedQueries:
    """The documents that clients have registered by their SHA-256.

    Keys in Redis are *prefix* and the digest; they live for *ttl* after their last use there.
    There the oldest give way to new ones beyond *max_shared* bytes together. Redis is given
    *patience* seconds to answer. In this process at most *max_count* texts of *max_length*
    characters together are kept.
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
        admit: Admit | None = None,
        max_shared: int = 50_000_000,
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._ttl = ttl
        self._admit = admit
        self._patience = patience
        self._max_shared = max_shared
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

    async def register(self, digest: str, text: str, caller: Caller = ANYBODY) -> None:
        """Keep *text*, whose SHA-256 is *digest*, for every process.

        What is longer than `MOST_BYTES`, or more than *caller* may have kept, is not.
        """
        if self._texts.get(digest) is not None:
            return
        size = len(text.encode())
        if size > MOST_BYTES:
            return
        if self._admit is not None:
            try:
                await self._admit(caller, size)
            except RateLimited:
                return
        self._texts.put(digest, text, weight=len(text))
        if self._redis is not None:
            try:
                async with asyncio.timeout(self._patience):
                    await self._share(self._redis, digest, text)
            except (RedisError, OSError) as error:
                self._note(error)
            else:
                self._note(None)

    async def _share(self, redis: Redis, digest: str, text: str) -> None:
        prefix, written = self._prefix, text.encode()
        keys = (prefix + digest, f"{prefix}order", f"{prefix}bytes")
        ttl = int(self._ttl.total_seconds())
        given = (written, digest, len(written), self._max_shared, ttl, prefix)
        kept: Any = redis.eval(_KEEP, len(keys), *keys, *given)
        await kept

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
