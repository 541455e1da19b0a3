"""The failures a user can cause or meet, as named exceptions that carry facts.

The layer that detects a failure raises it; `schema/errors.py` pairs each with what GraphQL shows.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar


def nearest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the three of *known* that look most like *name*, the likeliest first."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    folded = get_close_matches(name.casefold()[:100], by_folded, n=3, cutoff=0.3)
    return tuple(by_folded[candidate] for candidate in folded)


class BargraphError(Exception):
    """An expected failure. *code* is stable and is what clients switch on."""

    code: ClassVar[str] = "INTERNAL"

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a client is told besides, by its name in GraphQL."""
        return {}


class BadInput(BargraphError):
    """An argument that can never be answered; *field* names it."""

    code = "BAD_USER_INPUT"

    def __init__(self, message: str, *, field: str, suggestions: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.field = field
        self.suggestions = tuple(suggestions)


class UnknownName(BadInput):
    """A name nobody knows, with the nearest three that exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str] = (), *, field: str) -> None:
        shown = name if len(name) <= 60 else name[:57] + "..."
        suggestions = nearest(name, known)
        hint = f" Did you mean {', '.join(suggestions)}?" if suggestions else ""
        super().__init__(f"Unknown {kind} {shown!r}.{hint}", field=field, suggestions=suggestions)
        self.kind = kind
        self.name = name


class AmbiguousSymbol(BadInput):
    """A symbol that a provider lists in several markets; *choices* names them."""

    code = "AMBIGUOUS_SYMBOL"

    def __init__(self, symbol: str, choices: Iterable[str]) -> None:
        self.choices = tuple(choices)
        super().__init__(
            f"{symbol!r} is listed in several markets: {', '.join(self.choices)}. Name one.",
            field="market",
            suggestions=self.choices,
        )


class ProviderUnavailable(BargraphError):
    """A provider did not answer, or answered with nonsense; nothing is known about what it has."""

    code = "PROVIDER_UNAVAILABLE"

    def __init__(self, provider: str, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{provider} is unavailable: {reason}")
        self.provider = provider
        self.reason = reason
        self.retry_after = retry_after


class ImpossibleAnswer(ProviderUnavailable):
    """A provider answered with bars that cannot be true; asked again soon it does the same."""


class Unlisted(ProviderUnavailable):
    """A provider does not list, or not any more, what it was asked for."""


class StoreUnavailable(BargraphError):
    """The candle store did not answer; what it holds is not lost, only out of reach."""

    code = "STORE_UNAVAILABLE"


class InvalidBars(BargraphError):
    """Bars that cannot be true: NaN, unsorted, high below low. Never stored, never shown."""

    code = "INVALID_BARS"
