"""The database of accounts as one thing: transactions, in which every kind of row is at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.accounts.errors import connecting_failures, statement_failures
from db.accounts.repositories.api_tokens import ApiTokens
from db.accounts.repositories.audit import Audit
from db.accounts.repositories.credentials import Credentials
from db.accounts.repositories.layouts import Layouts
from db.accounts.repositories.one_time import OneTime
from db.accounts.repositories.one_time_codes import OneTimeCodes
from db.accounts.repositories.preferences import PreferenceBook
from db.accounts.repositories.presets import Presets
from db.accounts.repositories.sessions import Sessions
from db.accounts.repositories.standing import Standing, standing_by_session, standing_by_token
from db.accounts.repositories.users import Users
from db.encryption import KeyRing


class Transaction:
    """What happens all or not at all. Its rows are read as of the moment each is asked for."""

    def __init__(self, connection: AsyncConnection, ring: KeyRing) -> None:
        self.users = Users(connection)
        self.sessions = Sessions(connection)
        self.one_time = OneTime(connection)
        self.one_time_codes = OneTimeCodes(connection, ring)
        self.api_tokens = ApiTokens(connection)
        self.credentials = Credentials(connection, ring)
        self.preferences = PreferenceBook(connection)
        self.layouts = Layouts(connection)
        self.presets = Presets(connection)
        self.audit = Audit(connection)
        self._connection = connection

    async def standing(
        self, user_id: UUID, *, session_id: UUID | None = None, token_id: UUID | None = None
    ) -> Standing | None:
        """Return what a user is by one of their sessions or API tokens, None if either is gone."""
        if session_id is not None:
            return await standing_by_session(self._connection, user_id, session_id)
        if token_id is not None:
            return await standing_by_token(self._connection, user_id, token_id)
        return None


class Accounts:
    """Everything about accounts, over *engine*; what is encrypted is opened by *ring*."""

    def __init__(self, engine: AsyncEngine, ring: KeyRing) -> None:
        self._engine = engine
        self._ring = ring

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Yield a transaction, committed at the end of the block, undone if it raises.

        Do nothing slow inside: it holds a connection. Raises `AccountsUnavailable`, and whatever
        the block raises by itself.
        """
        with statement_failures():
            async with AsyncExitStack() as stack:
                with connecting_failures():
                    connection = await stack.enter_async_context(self._engine.begin())
                yield Transaction(connection, self._ring)
