"""Fill what the cache and the store left open, from the providers: the last link of the chain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from datasources.aggregates import Aggregates, Read
from datasources.ask import Ask, ask_of
from datasources.beginnings import Beginnings
from datasources.compose import (
    Stock,
    allowed,
    buckets_in,
    closed_hours,
    compose,
    select,
)
from datasources.fetching import Fetched, Fetcher
from datasources.found import Base, Found, GapReason, Head, Want
from datasources.views import view_grid
from market.bars import VOID, Bars
from market.buckets import Buckets
from market.errors import ProviderUnavailable
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, Spans, Window
from market.zones import ERA
from plugins.registry import Registry

_ATTEMPTS = 3
"""Another process may store part of a chunk while a flight waits; then rows are read anew."""


@dataclass(slots=True)
class Job:
    """Buckets of one want that one base is to build, and what has been learnt meanwhile."""

    want: Want
    ask: Ask
    buckets: Buckets
    head: Head | None
    view: Timeframe | None = None
    viewed: Spans = field(default_factory=Spans)
    """The time whose bars were last read through the view; of the rest the raw ones were."""
    refused: Spans = field(default_factory=Spans)
    fetched: list[Fetched] = field(default_factory=list)
    chunks: list[Window] = field(default_factory=list)
    dropped: list[Window] = field(default_factory=list)

    @property
    def spans(self) -> Spans:
        """The time whose bars the buckets need, up to now."""
        return self.buckets.spans & Spans.of(ERA.since, self.want.now)

    @property
    def known(self) -> Spans:
        """The time that is settled, by the bars of the base or by those read through the view."""
        if self.head is None or self.head.known is None:
            return Spans()
        return self.head.known | (self.head.rolled & self.viewed)

    @property
    def not_kept(self) -> Spans:
        """The time whose bars were dropped for their age, and are not asked for again."""
        if self.head is None or self.head.retained_from is None:
            return Spans()
        return Spans.of(ERA.since, self.head.retained_from)

    def learn(self, head: Head | None) -> None:
        """Take note of where the base stands, as a read found it; None if the store is away."""
        if head is not None and self.head is not None:
            head = replace(head, rolled=self.head.rolled | head.rolled)
        self.head = head or self.head

    @property
    def missing(self) -> Spans:
        """The time the provider must be asked about."""
        left = self.spans - self.known - self.refused - self.not_kept
        return left - closed_hours(self.want.series, left.hull) if left else left

    @property
    def all_refused(self) -> Spans:
        """The time the provider does not offer, as was known before and as it said now."""
        return self.refused | Spans(w for fetched in self.fetched for w in fetched.not_offered)

    @property
    def never(self) -> Spans:
        """The time of which the base can tell nothing, now or later."""
        return self.all_refused | (self.not_kept - self.known)

    def dirty(self) -> Spans:
        """The time whose bars are read raw, because the fetch may add to it.

        Whole buckets of the view, so that what is left can be read through the view.
        """
        if self.view is None:
            return Spans((self.spans.hull,))
        fine = view_grid(self.view)
        return Spans(fine.reach(window) for window in self.missing)


class Providers:
    """Asks providers chunk by chunk and composes what they and the store hold together."""

    name = "provider"

    def __init__(
        self,
        registry: Registry,
        aggregates: Aggregates,
        fetcher: Fetcher,
        beginnings: Beginnings,
        *,
        max_pages: int,
    ) -> None:
        self._registry = registry
        self._aggregates = aggregates
        self._fetcher = fetcher
        self._beginnings = beginnings
        self._max_pages = max_pages

    async def fetch(self, wants: Sequence[Want], so_far: Sequence[Found]) -> list[Found]:
        """Return what providers say of each want, base after base; failures become reasons."""
        found = [Found.nothing() for _ in wants]
        awaited = [Spans() for _ in wants]
        for depth in range(max((len(want.bases) for want in wants), default=0)):
            turn = [i for i, want in enumerate(wants) if depth < len(want.bases)]
            jobs = await asyncio.gather(
                *(self._job(wants[i], wants[i].bases[depth], so_far[i], found[i]) for i in turn)
            )
            numbered = [(i, job) for i, job in zip(turn, jobs, strict=True) if isinstance(job, Job)]
            for i, job in zip(turn, jobs, strict=True):
                if isinstance(job, Found):
                    found[i] = found[i].merge(job)
                    awaited[i] |= Spans(w for _, spans in job.unknown for w in spans)
            parts = await self._run([job for _, job in numbered])
            for (i, job), part in zip(numbered, parts, strict=True):
                # A native bar stands in for minutes that failed to come, but not for good.
                lasting = replace(part, settled=part.settled - awaited[i])
                found[i] = found[i].merge(lasting)
                awaited[i] |= _awaited(job, part)
        return found

    def ask(self, want: Want, base: Base) -> Ask:
        provider = self._registry.get(base.listing.provider)
        return ask_of(base, want.instrument, provider)

    async def first_bar(self, want: Want) -> int | None:
        """Return when the listing begins, None if nothing is offered.

        Raises `ProviderUnavailable`.
        """
        if not want.bases:
            return None
        return await self._beginnings.first_bar(self.ask(want, want.bases[0]))

    async def _job(self, want: Want, base: Base, so_far: Found, found: Found) -> Job | Found:
        left = buckets_in(want.series, want.spans)
        left = select(left, ~found.fresh.contains(left.opens) & (left.opens < want.now))
        left, view = self._aggregates.buildable(want, base, left, longest=DAY)
        if not len(left):
            return Found.nothing()
        ask = self.ask(want, base)
        head = so_far.heads.get(base)
        minutes_from = head.minutes_from if head else None
        coarse = not base.native and base.timeframe == MINUTE_FRAME != want.series.timeframe
        if coarse and minutes_from is None:
            try:
                minutes_from, settled = await self._beginnings.minutes_from(ask)
            except ProviderUnavailable:
                return _unknown(GapReason.PROVIDER_UNAVAILABLE, left.spans)
            head = settled or head
        left = select(left, allowed(want.series, base, left, minutes_from))
        if not len(left):
            # Where minutes begin decided that native bars stand here: when that moves, they go.
            return Found(Bars.empty(), heads={base: head} if head else {})
        # What it told of was read through another view, or not at all.
        head = replace(head, rolled=Spans()) if head else None
        return Job(want, ask, left, head, view=view)

    async def _run(self, jobs: Sequence[Job]) -> list[Found]:
        """Fetch what the jobs miss, read what they have, and compose both."""
        stocks: list[Stock | None] = [None] * len(jobs)
        for _ in range(_ATTEMPTS):
            turn = [n for n, stock in enumerate(stocks) if stock is None]
            if not turn:
                break
            for n in turn:
                job = jobs[n]
                job.refused = self._fetcher.refused(job.ask.base, job.want.now)
            rows = await self._read([jobs[n] for n in turn])
            await asyncio.gather(
                *(self._fetch(jobs[n], raw) for n, (_, raw) in zip(turn, rows, strict=True))
            )
            for n, (clean, raw) in zip(turn, rows, strict=True):
                if _accounted(jobs[n]) or not self._aggregates.available:
                    stocks[n] = _stock(jobs[n], clean, raw)
        return [
            _explained(job, stock) if stock else _unknown(GapReason.NOT_FETCHED, job.spans)
            for job, stock in zip(jobs, stocks, strict=True)
        ]

    async def _read(self, jobs: Sequence[Job]) -> list[tuple[Bars, Bars]]:
        """Return, for each job, bars of its view outside what may change, and raw ones inside."""
        reads: list[Read] = []
        owners: list[tuple[int, bool]] = []
        for n, job in enumerate(jobs):
            raw = job.dirty()
            job.viewed = job.spans - raw if job.view else Spans()
            for window in job.viewed:
                reads.append(Read(job.ask.base, job.view, window))
                owners.append((n, False))
            for window in raw:
                reads.append(Read(job.ask.base, None, window))
                owners.append((n, True))
        clean: list[list[Bars]] = [[] for _ in jobs]
        rough: list[list[Bars]] = [[] for _ in jobs]
        for (n, is_raw), (head, bars) in zip(
            owners, await self._aggregates.read(reads), strict=True
        ):
            (rough if is_raw else clean)[n].append(bars)
            jobs[n].learn(head)
        return [
            (Bars.concat(some), Bars.concat(more)) for some, more in zip(clean, rough, strict=True)
        ]

    async def _fetch(self, job: Job, raw: Bars) -> None:
        chunks = job.ask.chunks(job.missing)
        most = len(chunks) if job.ask.whole else self._max_pages
        job.chunks, job.dropped = chunks[:most], chunks[most:]
        job.fetched = list(
            await asyncio.gather(
                *(
                    self._fetcher.fetch(job.ask, chunk, job.known | job.not_kept, raw.slice(chunk))
                    for chunk in job.chunks
                )
            )
        )


def _accounted(job: Job) -> bool:
    """Whether the provider was asked about everything missing, by us or by a flight we joined."""
    told = list(job.dropped)
    for chunk, fetched in zip(job.chunks, job.fetched, strict=True):
        if fetched.failure is not None:
            told.append(chunk)
        # What came after the answer was still to come when it was given.
        told += [*fetched.asked, *fetched.not_offered, Window(fetched.as_of, chunk.until)]
    return not (job.missing - Spans(told))


def _awaited(job: Job, part: Found) -> Spans:
    """Return the buckets that *job*'s base will decide once the provider gives what it has."""
    left = select(job.buckets, ~part.fresh.contains(job.buckets.opens))
    return select(left, ~job.never.touches(left.opens, left.closes)).spans


def _stock(job: Job, clean: Bars, raw: Bars) -> Stock:
    bars = raw
    settled, fresh = list(job.known), list(job.known)
    head = job.head
    # Chunks come newest first, and only the newest can hold what runs now.
    as_of = job.fetched[0].as_of if job.fetched else job.want.now
    for fetched in job.fetched:
        if len(bars) or len(fetched.bars):
            # A flight that others started may bring minutes that the view's bars hold already.
            brought = fetched.bars.take(~job.viewed.contains(fetched.bars.time))
            bars = _without_withdrawn(bars, fetched).merge(brought)
        settled += fetched.settled
        fresh += fetched.fresh
        head = head.merge(fetched.head) if head and fetched.head else head or fetched.head
    return Stock(
        base=job.ask.base,
        bars=clean.merge(bars) if len(clean) else bars,
        settled=Spans(settled),
        fresh=Spans(fresh + settled),
        as_of=as_of,
        head=head,
    )


def _explained(job: Job, stock: Stock) -> Found:
    found = compose(job.want.series, job.buckets, stock)
    refused = job.all_refused
    asked = Spans(window for fetched in job.fetched for window in fetched.asked)
    closed = closed_hours(job.want.series, job.spans.hull)
    failed = Spans(
        chunk
        for chunk, fetched in zip(job.chunks, job.fetched, strict=True)
        if fetched.failure is not None
    )
    reasons = (
        (GapReason.NOT_OFFERED, refused),
        (GapReason.PROVIDER_UNAVAILABLE, (failed | asked) - stock.fresh - refused),
        (GapReason.NOT_FETCHED, Spans(job.dropped)),
        (GapReason.NOT_KEPT, job.not_kept - job.known - closed),
    )
    # Chunks reach further than the buckets, of whose time alone these reasons are true.
    mine = ((reason, spans & job.spans) for reason, spans in reasons)
    unknown = tuple((reason, spans) for reason, spans in mine if spans)
    return found.merge(Found(Bars.empty(), unknown=unknown))


def _without_withdrawn(bars: Bars, fetched: Fetched) -> Bars:
    """Mark what the provider no longer has, as the write that came with the fetch did."""
    gone = fetched.fresh.contains(bars.time) & ~np.isin(bars.time, fetched.bars.time)
    gone &= ((bars.flags & VOID) == 0) & (bars.updated < fetched.as_of)
    if not gone.any():
        return bars
    return bars.with_columns(
        flags=np.where(gone, bars.flags | VOID, bars.flags).astype(np.uint8),
        revision=bars.revision + gone,
    )


def _unknown(reason: GapReason, spans: Spans) -> Found:
    return Found(Bars.empty(), unknown=((reason, spans),))
