"""What can be asked for: markets, providers, symbols and the rules of instruments."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated

import strawberry

from datasources.health import HealthState
from market.errors import UnknownName
from market.instrument import Instrument, InstrumentType, Session
from plugins.base import (
    Description,
    History,
    Provider,
    StreamsBars,
    StreamsBooks,
    StreamsTickers,
    StreamsTrades,
    TradesHistory,
)
from plugins.registry import Entry
from resolvers.candles import Asked, Cut, request_of, series_for
from resolvers.paging import Page
from schema.candles import CandleWindow
from schema.context import Context, Info
from schema.enums import Capability
from schema.node import Node, global_id
from schema.scalars import Timestamp

Since = Annotated[
    Timestamp | None, strawberry.argument(description="Bars that open at or after this instant.")
]
Until = Annotated[
    Timestamp | None,
    strawberry.argument(description="Bars that open before it. Default: the provider's now."),
]
ZoneName = Annotated[str | None, strawberry.argument(description="IANA zone that days begin in.")]
SessionName = Annotated[
    Session | None, strawberry.argument(description="Which part of a trading day counts.")
]


@strawberry.type(name="Market", description="An asset class.")
class MarketType(Node):
    name: str = strawberry.field(description="Its name: `crypto`, `stocks`.")

    @strawberry.field(description="Who offers it.")
    def providers(self, info: Info) -> list[ProviderType]:
        return providers_of(info.context, self.name)

    @classmethod
    def of(cls, name: str) -> MarketType:
        return cls(id=global_id("Market", name), name=name)


@strawberry.type(description="What one answer may hold, so that no request costs too much.")
class ProviderLimits:
    max_bars: int = strawberry.field(description="Bars one window may hold (`MAX_BARS`).")
    max_pages: int = strawberry.field(
        description="Calls to the provider that one series may cost a request (`MAX_PAGES`)."
    )


@strawberry.type(description="What time it is at a provider; a replay runs in its own time.")
class ProviderClock:
    now: Timestamp = strawberry.field(description="The provider's now.")


@strawberry.type(description="How a provider has been answering this server.")
class ProviderHealth:
    state: HealthState = strawberry.field(description="How the last call went.")
    answered_at: Timestamp | None = strawberry.field(description="When it last answered.")
    failed_at: Timestamp | None = strawberry.field(description="When it last failed.")
    reason: str | None = strawberry.field(description="Why it last failed, while it does.")


@strawberry.type(name="Provider", description="Who supplies bars and symbols.")
class ProviderType(Node):
    name: str = strawberry.field(description="Its name in every query.")
    title: str = strawberry.field(description="Its name for people.")
    attribution: str | None = strawberry.field(
        description="Whose prices these are, to be shown beside them; null where disabled."
    )
    simulated: bool = strawberry.field(description="Whether the prices are made up.")
    shareable: bool = strawberry.field(
        description="Whether what it says to one user may be shown to another."
    )
    disabled: str | None = strawberry.field(description="Why it cannot be used; null where it can.")
    provider: strawberry.Private[Provider | None]

    @strawberry.field(description="The asset classes it offers.")
    def markets(self) -> list[MarketType]:
        return [MarketType.of(name) for name in self._description().markets]

    @strawberry.field(description="What it can do.")
    def capabilities(self) -> list[Capability]:
        if self.provider is None:
            return []
        able = {
            Capability.SYMBOLS: True,
            Capability.HISTORY: isinstance(self.provider, History),
            Capability.TRADES_HISTORY: isinstance(self.provider, TradesHistory),
            Capability.LIVE_BARS: isinstance(self.provider, StreamsBars),
            Capability.LIVE_TRADES: isinstance(self.provider, StreamsTrades),
            Capability.LIVE_BOOKS: isinstance(self.provider, StreamsBooks),
            Capability.LIVE_TICKERS: isinstance(self.provider, StreamsTickers),
        }
        return [capability for capability, has in able.items() if has]

    @strawberry.field(description="What one answer may hold.")
    def limits(self, info: Info) -> ProviderLimits:
        shared = info.context.shared
        return ProviderLimits(max_bars=shared.max_bars, max_pages=shared.max_pages)

    @strawberry.field(description="Its time; null where disabled.")
    def clock(self) -> ProviderClock | None:
        if self.provider is None:
            return None
        return ProviderClock(now=Timestamp(self.provider.clock.now()))

    @strawberry.field(description="How it has been answering.")
    def health(self, info: Info) -> ProviderHealth:
        health = info.context.shared.health.of(self.name)
        return ProviderHealth(
            state=health.state,
            answered_at=_timestamp(health.answered_at),
            failed_at=_timestamp(health.failed_at),
            reason=health.reason,
        )

    def _description(self) -> Description:
        if self.provider is None:
            return Description(self.name, self.name, (), "")
        return self.provider.description

    @classmethod
    def of(cls, entry: Entry) -> ProviderType:
        description = entry.provider.description if entry.provider else None
        return cls(
            id=global_id("Provider", entry.name),
            name=entry.name,
            title=description.title if description else entry.name,
            attribution=description.attribution if description else None,
            simulated=bool(description and description.simulated),
            shareable=bool(description and description.shareable),
            disabled=entry.disabled,
            provider=entry.provider,
        )


@strawberry.type(name="Instrument", description="The rules by which something is traded.")
class InstrumentRules:
    provider: str = strawberry.field(description="Whose rules these are.")
    market: str = strawberry.field(description="The asset class.")
    symbol: str = strawberry.field(description="The provider's name of it.")
    type: InstrumentType = strawberry.field(description="The kind of contract.")
    base: str | None = strawberry.field(description="What is bought.")
    quote: str | None = strawberry.field(description="What it is paid with.")
    tick_size: Decimal | None = strawberry.field(description="Prices are multiples of it.")
    lot_size: Decimal | None = strawberry.field(description="Quantities are multiples of it.")
    min_quantity: Decimal | None = strawberry.field(description="The smallest order.")
    max_quantity: Decimal | None = strawberry.field(description="The largest order.")
    min_notional: Decimal | None = strawberry.field(
        description="The smallest order's price times quantity."
    )
    order_types: list[str] = strawberry.field(description="Kinds of orders taken.")
    time_in_force: list[str] = strawberry.field(description="How long orders may stand.")
    calendar: str = strawberry.field(description="When it trades: `24/7`, or an exchange's code.")
    active: bool = strawberry.field(description="Whether it can be traded now.")

    @classmethod
    def of(cls, instrument: Instrument) -> InstrumentRules:
        return cls(
            provider=instrument.provider,
            market=instrument.market,
            symbol=instrument.symbol,
            type=instrument.type,
            base=instrument.base,
            quote=instrument.quote,
            tick_size=instrument.tick_size,
            lot_size=instrument.lot_size,
            min_quantity=instrument.min_quantity,
            max_quantity=instrument.max_quantity,
            min_notional=instrument.min_notional,
            order_types=list(instrument.order_types),
            time_in_force=list(instrument.time_in_force),
            calendar=instrument.calendar,
            active=instrument.active,
        )


@strawberry.type(name="Symbol", description="Something a provider has prices of.")
class SymbolType(Node):
    symbol: str = strawberry.field(description="The provider's name of it.")
    market: str = strawberry.field(description="The asset class.")
    base: str | None = strawberry.field(description="What is bought.")
    quote: str | None = strawberry.field(description="What it is paid with.")
    type: InstrumentType = strawberry.field(description="The kind of contract.")
    rules: strawberry.Private[Instrument]

    @strawberry.field(description="Who has the prices.")
    def provider(self, info: Info) -> ProviderType:
        entry = info.context.shared.directory.entry(self.rules.provider)
        if entry is None:
            raise UnknownName("provider", self.rules.provider, field="provider")
        return ProviderType.of(entry)

    @strawberry.field(description="The rules by which it is traded.")
    def instrument(self) -> InstrumentRules:
        return InstrumentRules.of(self.rules)

    @strawberry.field(
        description="Its bars, as the query `candles`; those of many symbols are loaded together."
    )
    async def candles(
        self,
        info: Info,
        timeframe: Annotated[str, strawberry.argument(description="A bar's length: `1h`.")],
        since: Since = None,
        until: Until = None,
        last: Annotated[
            int | None, strawberry.argument(description="The newest so many of the selection.")
        ] = 100,
        session: SessionName = None,
        timezone: ZoneName = None,
    ) -> CandleWindow:
        shared = info.context.shared
        asked = Asked(
            self.rules.provider,
            self.symbol,
            timeframe,
            market=self.market,
            timezone=timezone,
            session=session,
        )
        series = series_for(shared.directory, asked, self.rules)
        cut = Cut(since, until, 100 if last is None else last)
        request = request_of(series, self.rules, cut, max_bars=shared.max_bars)
        answer = await info.context.candles.load(request)
        return CandleWindow(answer=answer, request=request)

    @classmethod
    def of(cls, instrument: Instrument) -> SymbolType:
        return cls(
            id=global_id("Symbol", instrument.provider, instrument.market, instrument.symbol),
            symbol=instrument.symbol,
            market=instrument.market,
            base=instrument.base,
            quote=instrument.quote,
            type=instrument.type,
            rules=instrument,
        )


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    has_previous_page: bool = strawberry.field(description="Whether there are earlier ones.")
    has_next_page: bool = strawberry.field(description="Whether there are later ones.")
    start_cursor: str | None = strawberry.field(description="Cursor of the page's first.")
    end_cursor: str | None = strawberry.field(description="Cursor of the page's last.")

    @classmethod
    def of(cls, cursors: Sequence[str], *, has_previous: bool, has_next: bool) -> PageInfo:
        return cls(
            has_previous_page=has_previous,
            has_next_page=has_next,
            start_cursor=cursors[0] if cursors else None,
            end_cursor=cursors[-1] if cursors else None,
        )


@strawberry.type(description="A symbol at its place in the list.")
class SymbolEdge:
    node: SymbolType = strawberry.field(description="The symbol.")
    cursor: str = strawberry.field(description="Its place, for `after` and `before`.")


@strawberry.type(description="A page of symbols.")
class SymbolConnection:
    edges: list[SymbolEdge] = strawberry.field(description="The symbols with their cursors.")
    nodes: list[SymbolType] = strawberry.field(description="The symbols.")
    page_info: PageInfo = strawberry.field(description="Where the page lies.")
    total_count: int = strawberry.field(description="How many symbols match in all.")

    @classmethod
    def of(cls, page: Page[Instrument]) -> SymbolConnection:
        nodes = [SymbolType.of(instrument) for instrument in page.nodes]
        return cls(
            edges=[
                SymbolEdge(node=node, cursor=cursor)
                for node, cursor in zip(nodes, page.cursors, strict=True)
            ],
            nodes=nodes,
            page_info=PageInfo.of(
                page.cursors, has_previous=page.has_previous, has_next=page.has_next
            ),
            total_count=page.total,
        )


def providers_of(context: Context, market: str | None) -> list[ProviderType]:
    """Return the providers of *market*; of all, and the disabled ones too, where it is None."""
    entries = context.shared.directory.entries()
    return [
        ProviderType.of(entry)
        for entry in entries
        if market is None
        or (entry.provider is not None and market in entry.provider.description.markets)
    ]


def _timestamp(instant: int | None) -> Timestamp | None:
    return None if instant is None else Timestamp(instant)
