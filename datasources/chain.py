"""Answer requests for bars from the cheapest source that has them.

The cache is asked first, then the store's aggregates, then the provider; each only for the buckets
left open by those before it, and what it returns is kept in the cache. Requests come in batches,
so that a watchlist costs as many statements and round trips as one chart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from datasources.aggregates import Aggregates
from datasources.beginnings import NEVER
from datasources.cache import Cache
from datasources.compose import buckets_in, select
from datasources.found import Answer, Base, Found, Gap, GapReason, Head, Request, Want
from datasources.gaps import gaps_of, joined
from datasources.meter import Meter
from datasources.openings import Openings
from datasources.plan import bases_of, offer_of
from datasources.providers import Providers
from market.buckets import grid
from market.calendars import calendar
from market.errors import BargraphError, ProviderUnavailable
from market.instrument import Series, Session
from market.window import Spans, Window
from plugins.registry import Registry

_ROUNDS = 12
"""How often a search for the newest bars may widen; each time it looks four times as far back."""
_MOST_BUCKETS = 4_000_000
"""Buckets of time one request may search, so that no window costs more than this."""


@dataclass(slots=True)
class Search:
    """A request on its way: how far back it has looked, and what it found."""

    request: Request
    bases: tuple[Base, ...]
    now: int
    since: int
    until: int
    unreachable: GapReason
    """Why a bucket has no bar that no source could speak of."""
    found: Found = field(default_factory=Found.nothing)
    beginning: int | None = None
    """Where the listing's first bucket opens, once somebody asked; `NEVER` if it has none."""
    failure: ProviderUnavailable | None = None
    done: bool = False

    @property
    def want(self) -> Want:
        spans = Spans.of(self.since, self.until)
        request = self.request
        return Want(request.series, request.instrument, self.bases, spans, self.now)

    def before_reason(self) -> GapReason:
        """Why nothing is said of the time before `since`."""
        if self.failure or any(r is GapReason.PROVIDER_UNAVAILABLE for r, _ in self.found.unknown):
            return GapReason.PROVIDER_UNAVAILABLE
        if self.beginning is None or self.since > self.beginning:
            return GapReason.NOT_FETCHED
        return GapReason.NOT_OFFERED if self.beginning == NEVER else GapReason.BEFORE_FIRST


class Chain:
    """Sources in order of cost, the cheapest first."""

    def __init__(
        self,
        registry: Registry,
        cache: Cache,
        aggregates: Aggregates,
        providers: Providers,
        *,
        meter: Meter,
        openings: Openings | None = None,
    ) -> None:
        self._registry = registry
        self._openings = openings
        self._cache = cache
        self._aggregates = aggregates
        self._providers = providers
        self._meter = meter

    async def answer(self, requests: Sequence[Request]) -> list[Answer | BargraphError]:
        """Return the answer to each request, or the failure that left it without any bar."""
        if self._openings is not None:
            self._openings.note(requests)
        searches = [self._begin(request) for request in requests]
        for _ in range(_ROUNDS):
            turn = [search for search in searches if not search.done]
            if not turn:
                break
            for search, found in zip(
                turn, await self._fetch([search.want for search in turn]), strict=True
            ):
                search.found = found
                search.done = _ended(search)
            if left := [search for search in turn if not search.done]:
                await asyncio.gather(*map(self._look_further, left))
        return [_answer(search) for search in searches]

    async def _fetch(self, wants: Sequence[Want], *, cached: bool = True) -> list[Found]:
        found = [Found.nothing() for _ in wants]
        if cached:
            found = await self._cache.fetch(wants)
            self._count(self._cache.name, found)
        changed: set[int] = set()
        outdated: dict[int, dict[Base, Head]] = {}
        for source in (self._aggregates, self._providers):
            left = [_left(want, known) for want, known in zip(wants, found, strict=True)]
            turn = [i for i, spans in enumerate(left) if spans]
            if not turn:
                break
            asked = [
                wants[i] if left[i] is wants[i].spans else replace(wants[i], spans=left[i])
                for i in turn
            ]
            fresh = await source.fetch(asked, [found[i] for i in turn])
            self._count(source.name, fresh)
            for i, more in zip(turn, fresh, strict=True):
                if more.outdates(found[i]):
                    outdated[i] = dict(more.heads)
                found[i] = found[i].merge(more)
                if more.fresh:
                    changed.add(i)
        if outdated:
            # History was revised and nobody has told the cache: whoever wrote it may have died.
            await self._cache.moved({b: h for heads in outdated.values() for b, h in heads.items()})
            again = await self._fetch([wants[i] for i in outdated], cached=False)
            for i, right in zip(outdated, again, strict=True):
                found[i] = right
        if kept := sorted(changed - outdated.keys()):
            self._cache.keep([wants[i] for i in kept], [found[i] for i in kept])
        return found

    def _count(self, source: str, found: Sequence[Found]) -> None:
        self._meter.bars(source, sum(len(some.bars) for some in found))

    def _begin(self, request: Request) -> Search:
        series = request.series
        provider = self._registry.get(series.listing.provider)
        now = provider.clock.now()
        until = now if request.until is None else min(request.until, now)
        offer = offer_of(provider, request.instrument)
        unreachable = GapReason.NOT_FETCHED
        bases = bases_of(series, request.instrument, provider)
        if offer is None or offer.whole or not bases:
            unreachable = GapReason.NOT_OFFERED
        if request.since is not None and request.since >= until:
            return Search(request, bases, now, until, until, unreachable, done=True)
        reach = int((request.last + 2) * series.timeframe.nominal * _open_share(series))
        since = _floor(series, until - reach)
        if request.since is not None:
            since = max(since, request.since)
        return Search(request, bases, now, since, until, unreachable)

    async def _look_further(self, search: Search) -> None:
        """Widen the search because fewer bars were found than asked for, or end it."""
        request, found = search.request, search.found
        lowest = _NO_BEGINNING if request.since is None else request.since
        if search.beginning is None:
            try:
                first = await self._providers.first_bar(search.want)
            except ProviderUnavailable as failure:
                search.done = True
                if search.since > lowest:
                    search.failure = failure
                return
            search.beginning = NEVER if first is None else _floor(request.series, first)
            if len(found.bars):
                search.beginning = min(search.beginning, int(found.bars.time[0]))
        floor = max(lowest, search.beginning)
        widest = _MOST_BUCKETS * request.series.timeframe.nominal
        width = min(4 * (search.until - search.since), widest)
        if search.since <= floor or width <= search.until - search.since:
            search.done = True
            return
        search.since = max(_floor(request.series, search.until - width), floor)


_NO_BEGINNING = -(2**62)


def _left(want: Want, found: Found) -> Spans:
    """Return the time of the buckets of *want* that nothing was found for, or that it is past."""
    if not found.fresh:
        return want.spans
    if not want.spans - found.fresh:
        return Spans()
    buckets = buckets_in(want.series, want.spans)
    return select(buckets, ~found.fresh.contains(buckets.opens)).spans


def _ended(search: Search) -> bool:
    """Whether enough was found, a provider failed, or nothing earlier is selected."""
    request, found = search.request, search.found
    lowest = _NO_BEGINNING if request.since is None else request.since
    window = (max(lowest, search.since), search.until)
    first, last = found.bars.time.searchsorted(window).tolist()
    if last - first > request.last + (not request.include_forming):
        return True
    if any(reason is GapReason.PROVIDER_UNAVAILABLE for reason, _ in found.unknown):
        return True
    return search.since <= lowest and _tells_the_start(search)


def _tells_the_start(search: Search) -> bool:
    """Whether the first bucket of the search is told of; if not, it may lie before the listing."""
    if not search.found.fresh:
        return False
    left = _left(search.want, search.found)
    return not left or left.hull.since > search.found.fresh.hull.since


def _floor(series: Series, instant: int) -> int:
    """Return the opening of the bucket that contains *instant*, or *instant* between sessions."""
    bucket = grid(series).at(instant)
    return bucket.since if bucket else instant


def _open_share(series: Series) -> float:
    """Return how many times longer time runs than trading does, to guess how far to look back."""
    rules = calendar(series.calendar)
    if rules.around_the_clock:
        return 1.0
    if series.timeframe.step is None:
        return 1.6
    return 6.0 if series.session is Session.REGULAR else 2.4


def _answer(search: Search) -> Answer | BargraphError:
    request, found = search.request, search.found
    since = max(
        search.since if search.beginning is None else max(search.since, search.beginning),
        _NO_BEGINNING if request.since is None else request.since,
    )
    window = Window(min(since, search.until), search.until)
    bars = found.bars.slice(window)
    bars = bars.inside(found.fresh)
    if not request.include_forming:
        bars = bars.closed()
    cut_off = len(bars) > request.last
    if cut_off:
        bars = bars.last(request.last)
        window = Window(int(bars.time[0]), window.until)
    gaps = gaps_of(
        request.series, window, bars, found, now=search.now, otherwise=search.unreachable
    )
    if request.since is not None and request.since < window.since and not cut_off:
        gaps.append(Gap(request.since, window.since, search.before_reason()))
    if request.until is not None and request.until > search.now:
        after = max(request.since or search.now, search.now)
        gaps.append(Gap(_next_open(request.series, after), request.until, GapReason.AFTER_LAST))
    gaps = joined(gap for gap in gaps if gap.since < gap.until)
    if not len(bars) and any(gap.reason is GapReason.PROVIDER_UNAVAILABLE for gap in gaps):
        provider = request.series.listing.provider
        return search.failure or ProviderUnavailable(provider, "it did not answer")
    return Answer(
        series=request.series,
        bars=bars,
        gaps=gaps,
        has_earlier=cut_off or _ended_short(search),
        # A provider may have answered later than that; what opened in between was not asked for.
        as_of=min(found.as_of or search.now, search.now),
        heads=found.heads,
    )


def _ended_short(search: Search) -> bool:
    """Whether the listing's first bar is selected, and the search ended before it came to it."""
    lowest = _NO_BEGINNING if search.request.since is None else search.request.since
    return search.beginning is not None and lowest <= search.beginning < search.since


def _next_open(series: Series, instant: int) -> int:
    """Return where the bucket that runs at *instant* ends: the next one has not begun."""
    bucket = grid(series).at(instant)
    return bucket.until if bucket and bucket.since < instant else instant
