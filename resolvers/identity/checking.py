"""Tell from a token who asks, and whether they still may: now, and again on open sockets.

Reading a token needs no database. Whether it still counts does: the user may have been demoted,
disabled or deleted, the session ended, the API token revoked. That answer is kept for
`CHECK_SECONDS` in the process, so a loss of rights shows everywhere after that time at most. What
a token said is remembered for longer, so the key that signed it is looked for again each time.
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass
from uuid import UUID

from db.accounts.accounts import Accounts
from db.accounts.columns import instant_of
from db.accounts.permissions import PERMISSIONS, SCOPED, Permission
from db.accounts.repositories.standing import Standing
from market.clock import Clock
from market.lru import LRU
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.principal import AccessTokens, Claims, Principal
from resolvers.identity.tokens import api_prefix, digest_of

CHECK_SECONDS = 2.0
_MOST_READ = 20_000
_MOST_USERS = 20_000
_MOST_OF_A_USER = 128
_LONGEST_TOKEN = 2_048
_USE_NOTED_MS = 60_000

_Key = tuple[UUID, UUID]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a user was *at* a time, in ms; None: nobody any more."""

    standing: Standing | None
    at: int


@dataclass(frozen=True, slots=True)
class _Checked:
    """What a token amounts to between two times, in ms, unless somebody's rights change."""

    principal: Principal
    since: int
    until: int
    changes: int


class Checks:
    """Reads tokens and checks what they claim, with bounded memory of both."""

    def __init__(self, accounts: Accounts, tokens: AccessTokens, clock: Clock) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._clock = clock
        self._read: LRU[bytes, Claims] = LRU(max_count=_MOST_READ)
        self._checked: LRU[bytes, _Checked] = LRU(max_count=_MOST_READ)
        self._seen: LRU[UUID, dict[UUID, _Seen]] = LRU(max_count=_MOST_USERS)
        self._noted: LRU[UUID, int] = LRU(max_count=_MOST_USERS)
        self._asking: dict[_Key, asyncio.Task[_Seen]] = {}
        self._tasks: set[asyncio.Task[_Seen]] = set()
        self._changes = 0

    async def aclose(self) -> None:
        """Ask nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lately(self, bearer: str) -> Principal | None:
        """Return who shows the token *bearer* if that was found out within `CHECK_SECONDS`."""
        checked = self._checked.get(digest_of(bearer))
        if checked is None or checked.changes != self._changes:
            return None
        return checked.principal if checked.since <= self._clock.now() < checked.until else None

    def is_read(self, bearer: str) -> bool:
        """Whether the token *bearer* was read before, so that it need not be found out about."""
        return digest_of(bearer) in self._read

    async def authenticate(self, bearer: str) -> Principal:
        """Return who shows the token *bearer*: an access token or an API token.

        Raises `Unauthenticated`, `AccountsUnavailable`.
        """
        if len(bearer) > _LONGEST_TOKEN:
            raise Unauthenticated
        digest = digest_of(bearer)
        claims = self._read.get(digest)
        if claims is None:
            prefix = api_prefix(bearer)
            if prefix is None:
                claims = self._tokens.read(bearer)
            else:
                claims = await self._claims_of(prefix, digest)
        try:
            principal, seen = await self._checked_now(claims)
        except Unauthenticated:
            self._read.pop(digest)
            raise
        self._read.put(digest, claims)
        if self._kept(claims) is seen:  # so nothing was told about this user meanwhile
            until = min(_stale_at(seen), claims.expires_at)
            self._checked.put(digest, _Checked(principal, seen.at, until, self._changes))
        return principal

    async def check(self, claims: Claims) -> Principal:
        """Return what *claims* amount to now. Raises `Unauthenticated`, `AccountsUnavailable`."""
        principal, _ = await self._checked_now(claims)
        return principal

    async def _checked_now(self, claims: Claims) -> tuple[Principal, _Seen]:
        """Return what *claims* amount to, and what that was told from."""
        now = self._clock.now()
        proof = claims.session_id or claims.api_token_id
        if proof is None or claims.expires_at <= now:
            raise Unauthenticated
        if claims.key_id is not None and not self._tokens.trusts(claims.key_id):
            raise Unauthenticated
        seen = await self._seen_by(claims, proof, now)
        standing = seen.standing
        if standing is None or claims.version not in (None, standing.token_version):
            raise Unauthenticated
        if claims.api_token_id is not None:
            await self._note_use(claims.api_token_id, now)
        principal = Principal(
            user_id=standing.user_id,
            username=standing.username,
            role=standing.role,
            permissions=_permissions(standing),
            claims=claims,
            expires_at=claims.expires_at,
            scopes=standing.scopes,
        )
        return principal, seen

    def forget(self, user_id: UUID) -> None:
        """Ask anew at the next check of a user: something about them has changed here."""
        self._changes += 1
        self._seen.pop(user_id)
        for key in [key for key in self._asking if key[0] == user_id]:
            del self._asking[key]

    def _kept(self, claims: Claims) -> _Seen | None:
        proof = claims.session_id or claims.api_token_id
        return (self._seen.get(claims.user_id) or {}).get(proof) if proof is not None else None

    async def _claims_of(self, prefix: str, digest: bytes) -> Claims:
        async with self._accounts.transaction() as transaction:
            token = await transaction.api_tokens.beginning(prefix)
        if token is None or not hmac.compare_digest(token.token_hash, digest):
            raise Unauthenticated
        expires_at = int(token.expires_at.timestamp() * 1000)
        return Claims(token.user_id, expires_at, api_token_id=token.id)

    async def _seen_by(self, claims: Claims, proof: UUID, now: int) -> _Seen:
        seen = self._kept(claims)
        if seen is not None and seen.at <= now < _stale_at(seen):
            return seen
        # Everybody who asks the same at the same time waits for one answer.
        key = (claims.user_id, proof)
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._asked(claims, now), name="identity check")
            self._asking[key] = task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    def _answered(self, key: _Key, task: asyncio.Task[_Seen]) -> None:
        self._tasks.discard(task)
        if self._asking.get(key) is task:
            del self._asking[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; they may all have left

    async def _asked(self, claims: Claims, now: int) -> _Seen:
        changes = self._changes
        async with self._accounts.transaction() as transaction:
            standing = await transaction.standing(
                claims.user_id, session_id=claims.session_id, token_id=claims.api_token_id
            )
        seen = _Seen(standing, now)
        if self._changes != changes:
            return seen  # this may have been read before the change: it is not kept
        kept = self._seen.get(claims.user_id)
        if kept is None or len(kept) >= _MOST_OF_A_USER:
            kept = {}
            self._seen.put(claims.user_id, kept)
        proof = claims.session_id or claims.api_token_id
        assert proof is not None
        kept[proof] = seen
        return seen

    async def _note_use(self, token_id: UUID, now: int) -> None:
        noted = self._noted.get(token_id)
        if noted is not None and now - noted < _USE_NOTED_MS:
            return
        self._noted.put(token_id, now)
        async with self._accounts.transaction() as transaction:
            await transaction.api_tokens.note_use(token_id, instant_of(now))


def _stale_at(seen: _Seen) -> int:
    return seen.at + int(CHECK_SECONDS * 1000)


def _permissions(standing: Standing) -> frozenset[Permission]:
    held = PERMISSIONS[standing.role]
    if standing.scopes is None:
        return held
    return held & frozenset[Permission]().union(*(SCOPED[scope] for scope in standing.scopes))
