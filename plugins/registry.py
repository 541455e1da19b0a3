"""Which providers there are: the built-in ones and those that other packages bring.

One that cannot load is listed with its reason, and the others go on. A package brings a provider
by an entry point in the group `bargraph.providers` whose name is the provider's and whose object
is a `Factory`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from market.clock import Clock
from market.errors import BargraphError, UnknownName
from plugins.base import Description, Provider

GROUP = "bargraph.providers"
CLOSE_SECONDS = 5.0
"""How long a provider may take to give back what it opened."""

_log = logging.getLogger(__name__)
# Names are parts of cache keys, channels and URLs.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What a provider is given to build itself with."""

    clock: Clock


Factory = Callable[[ProviderContext], Provider | Awaitable[Provider]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A provider by name: either it works, or *disabled* says why it does not."""

    name: str
    provider: Provider | None
    disabled: str | None


class ProviderDisabled(BargraphError):
    """A provider that is known and cannot be used; *reason* says why."""

    code = "PROVIDER_DISABLED"

    def __init__(self, provider: str, reason: str) -> None:
        super().__init__(f"{provider} is disabled: {reason}")
        self.provider = provider
        self.reason = reason


class Registry:
    """The providers of this process. A name that comes twice belongs to the first."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = tuple(entries)
        self._by_name: dict[str, Entry] = {}
        for entry in self._entries:
            self._by_name.setdefault(entry.name, entry)

    def entries(self) -> Sequence[Entry]:
        """Return all, built-in ones first, those that do not work included."""
        return self._entries

    def get(self, name: str) -> Provider:
        """Return the provider called *name*. Raises `UnknownName`, `ProviderDisabled`."""
        entry = self._by_name.get(name)
        if entry is None:
            raise UnknownName("provider", name, self._by_name, field="provider")
        if entry.provider is None:
            raise ProviderDisabled(name, entry.disabled or "it did not load")
        return entry.provider


@asynccontextmanager
async def open_registry(
    builtins: Mapping[str, Factory],
    *,
    context: ProviderContext,
    disabled: Mapping[str, str] | None = None,
    installed: Iterable[EntryPoint] | None = None,
) -> AsyncIterator[Registry]:
    """Build every provider, yield them as a `Registry`, and close them all.

    *disabled* gives a reason by the name of each provider that must not be built. *installed* are
    the entry points to load, those of `GROUP` by default.
    """
    points = entry_points(group=GROUP) if installed is None else installed
    off = disabled or {}
    factories: list[tuple[str, Callable[[], Factory]]] = [
        *((name, lambda factory=factory: factory) for name, factory in builtins.items()),
        *((point.name, point.load) for point in sorted(points, key=lambda point: point.name)),
    ]
    entries: list[Entry] = []
    try:
        for name, load in factories:
            if any(entry.name == name for entry in entries):
                entries.append(Entry(name, None, "another provider has this name already"))
            elif name in off:
                entries.append(Entry(name, None, off[name]))
            else:
                entries.append(await _built(name, load, context))
        yield Registry(entries)
    finally:
        await asyncio.gather(*(_close(e.name, e.provider) for e in entries if e.provider))


async def _built(name: str, load: Callable[[], Factory], context: ProviderContext) -> Entry:
    if not _NAME.fullmatch(name):
        return Entry(name, None, f"a provider's name must match {_NAME.pattern}")
    try:
        made = load()(context)
        provider = await made if inspect.isawaitable(made) else made
    except Exception as error:
        # Other people's code: whatever it raises concerns this provider alone.
        expected = isinstance(error, BargraphError)
        _log.warning("provider %s did not load: %s", name, error, exc_info=not expected)
        return Entry(name, None, str(error) if expected else f"{type(error).__name__}: {error}")
    wrong = _wrong_shape(name, provider)
    if wrong is None:
        return Entry(name, provider, None)
    _log.warning("provider %s did not load: %s", name, wrong)
    await _close(name, provider)
    return Entry(name, None, wrong)


def _wrong_shape(name: str, provider: object) -> str | None:
    try:
        description = getattr(provider, "description", None)
        now = getattr(getattr(provider, "clock", None), "now", None)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if not isinstance(description, Description):
        return f"its factory made a {type(provider).__name__} without a description"
    if description.name != name:
        return f"it calls itself {description.name!r}"
    if not callable(now):
        return "it has no clock"
    for method in ("symbols", "aclose"):
        if not inspect.iscoroutinefunction(getattr(provider, method, None)):
            return f"it has no async method {method!r}"
    return None


async def _close(name: str, provider: object) -> None:
    close = getattr(provider, "aclose", None)
    if not inspect.iscoroutinefunction(close):
        return
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await close()
    except Exception as error:
        # The others must be closed too.
        _log.warning("provider %s did not close: %s: %s", name, type(error).__name__, error)
