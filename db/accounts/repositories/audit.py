"""The audit log: what was done, by whom, with what result; added to, and never changed.

But for two things: a person who leaves is forgotten, and lines that are too old are removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.models.identity import AuditRow as Row

MOST_PER_PAGE = 501
OK = "ok"


@dataclass(frozen=True, slots=True)
class NewEntry:
    """Something that was done. *user_id* is whose log it belongs to, *actor_id* who did it.

    *result* is `ok` or the code of a failure; *target* names what it was done to, never a secret.
    """

    at: datetime
    action: str
    result: str = OK
    user_id: UUID | None = None
    actor_id: UUID | None = None
    target: str | None = None
    address: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the log; *id* grows with time."""

    id: int
    at: datetime
    user_id: UUID | None
    actor_id: UUID | None
    action: str
    target: str | None
    result: str
    address: str | None
    request_id: str | None


class Audit:
    """The log, on one transaction's connection: it tells of what is committed with it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, entry: NewEntry) -> None:
        """Add a line."""
        values = {name: getattr(entry, name) for name in NewEntry.__slots__}
        await self._connection.execute(insert(Row).values(**values))

    async def page(
        self,
        *,
        first: int,
        before: int | None = None,
        user_id: UUID | None = None,
        action: str | None = None,
    ) -> list[Entry]:
        """Return at most *first* lines, the newest first, those older than the line *before*.

        Of everybody if *user_id* is None: that is for admins.
        """
        asked = select(Row).order_by(Row.id.desc()).limit(min(first, MOST_PER_PAGE))
        if before is not None:
            asked = asked.where(Row.id < before)
        if user_id is not None:
            asked = asked.where(Row.user_id == user_id)
        if action is not None:
            asked = asked.where(Row.action == action)
        return [_entry(row) for row in await self._connection.execute(asked)]

    async def page_of_person(
        self, user_id: UUID, *, first: int, before: int | None = None
    ) -> list[Entry]:
        """Return a page as `page` does, of what *user_id* did to others besides."""
        asked = (
            select(Row)
            .where((Row.user_id == user_id) | (Row.actor_id == user_id))
            .order_by(Row.id.desc())
            .limit(min(first, MOST_PER_PAGE))
        )
        if before is not None:
            asked = asked.where(Row.id < before)
        return [_entry(row) for row in await self._connection.execute(asked)]

    async def last_times(
        self, user_id: UUID, *, result: str, most: int, action: str | None = None
    ) -> list[datetime]:
        """Return when *result* last came of what was tried with an account, the newest first.

        Of whatever was tried, or of *action* alone.
        """
        asked = (
            select(Row.at)
            .where(Row.user_id == user_id, Row.result == result)
            .order_by(Row.id.desc())
            .limit(most)
        )
        if action is not None:
            asked = asked.where(Row.action == action)
        return list((await self._connection.scalars(asked)).all())

    async def remove_oldest(self, before: datetime, *, most: int) -> int:
        """Remove those of the *most* oldest lines that are from before *before*; return how many.

        There is no index by time: lines are looked at in the order in which they were added.
        """
        oldest = select(Row.id, Row.at).order_by(Row.id).limit(most)
        over = [line.id for line in await self._connection.execute(oldest) if line.at < before]
        if over:
            removing = delete(Row).where(Row.id.in_(over))
            return (await self._connection.execute(removing)).rowcount
        return 0

    async def forget_person(self, user_id: UUID) -> None:
        """Take from the lines of a deleted user what tells of the person: addresses, and targets.

        That somebody did something remains, by an id that leads nowhere any more. So does what
        others did to them, from where, and what they did to others. No line ever sees another
        change.
        """
        theirs = Row.user_id == user_id
        by_them = (Row.actor_id == user_id) | (theirs & Row.actor_id.is_(None))
        await self._connection.execute(update(Row).where(theirs).values(target=None))
        await self._connection.execute(update(Row).where(by_them).values(address=None))


def _entry(row: Any) -> Entry:
    return Entry(**{name: getattr(row, name) for name in Entry.__slots__})
