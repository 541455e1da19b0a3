"""How one kind of push is had from ccxt: what to watch, what it means, how to leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from market.errors import ProviderUnavailable
from plugins.ccxt_exchange.unread import Unread

T = TypeVar("T")

_KEPT = 1_000
"""How many trades or bars ccxt keeps where an exchange's options do not say."""


class Tap(Protocol[T]):
    """One thing that an exchange pushes of one symbol."""

    kind: str
    """The end of the method's name at ccxt: `watch_` or `un_watch_` and this."""
    has: str
    """The same in the words of ccxt's `has`."""
    symbol: str
    name: str
    """What tells it from all others of the exchange."""
    arguments: tuple[Any, ...]
    """What `un_watch_` takes."""
    keeps_state: bool
    """Whether the newest batch says everything, so that a late listener can begin with it."""
    empty: T
    """What an empty batch looks like to the listener."""

    def serves(self, other: object) -> bool:
        """Return whether whoever wants *other* may listen here instead."""
        ...

    def unread(self) -> Unread[T]:
        """Return an empty bound buffer for one listener."""
        ...

    async def next(self, exchange: Any) -> T | None:
        """Return what comes next, None if none of it is known for sure.

        Raises `BookBroken`, `ProviderUnavailable`, and whatever ccxt does.
        """
        ...

    def forget(self, exchange: Any) -> None:
        """Drop what ccxt keeps of it."""
        ...


def taken(exchange: Any, kept: Any, said: Sequence[Any], limit: str) -> None:
    """Empty what ccxt keeps once *said* was taken from it. Raises if some of it was pushed out.

    ccxt counts what is new, keeps as much as its *limit*, and returns that many from the end: a row
    changed further back would not be among them unless the old ones are gone.
    """
    most = getattr(kept, "max_size", None) or exchange.options.get(limit) or _KEPT
    if len(said) >= int(most):
        raise ProviderUnavailable(exchange.id, "more was pushed at once than is kept")
    if kept is not None:
        kept.clear()
