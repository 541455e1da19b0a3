"""What a subscription's resolver gives when many viewers can share what it finds.

Such events have two parts: a catch-up that each viewer needs for itself, and a tail that is the
same for all of them. The transport runs the tail once for all who see the same of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Shown(Generic[T_co]):
    """One event of a tail.

    A later event of the same *passing* key makes it obsolete, as a forming bar's next state does:
    of such events a slow viewer gets the newest only. With None it reaches every viewer. *place*
    says where the event stands, to `LiveEvents.told`; None where nothing compares.
    """

    event: T_co
    passing: Hashable | None = None
    place: object = None


@runtime_checkable
class LiveEvents(Protocol[T_co]):
    """Events that one viewer asked for, and whose tail others may see too.

    Failures that are raised while iterating end the subscription; `BargraphError`s are shown.
    """

    @property
    def key(self) -> Hashable:
        """What the tail is: those of equal keys see the same one, whatever they catch up with."""

    def __aiter__(self) -> AsyncIterator[T_co]:
        """Catch up, then follow the tail: all events of one viewer, shared with nobody."""

    def catch_up(self) -> AsyncIterator[T_co]:
        """Yield what this viewer needs before the tail, and end.

        It is asked once the tail has been joined, and meanwhile the tail's events are kept for the
        viewer, but for those that the catch-up has `told`.
        """

    def told(self, place: object) -> bool:
        """Whether the catch-up, now over, told all that the tail's event at *place* does."""

    def tail(self) -> AbstractAsyncContextManager[AsyncIterator[Shown[T_co]]]:
        """Return the tail, which is entered once for all viewers of the same key.

        Entering ends when it is joined: no event after that is missed. Whose `tail` is entered is
        left open, so nothing in it may depend on a viewer. Leaving it gives everything back, also
        while an event is waited for.
        """
