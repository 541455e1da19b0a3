"""The root of subscriptions: live bars, trades, order books, tickers, and how backfills go on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, cast

import strawberry

from resolvers.backfills import live_progress
from resolvers.live_bars import live_bars
from resolvers.live_quotes import MAX_DEPTH, Named, live_book, live_tickers, live_trades
from schema.backfills import BackfillProgress
from schema.candles import SeriesInput
from schema.context import Info
from schema.live import (
    BarEvent,
    OrderBookEvent,
    Presented,
    Ticker,
    TradeType,
    bar_event,
    book_event,
    ticker_of,
    trades_of,
)
from schema.node import uuid_in
from schema.query import ProviderName

_DEPTH = 20

SymbolName = Annotated[
    str, strawberry.argument(description="The provider's name of the instrument.")
]
Market = Annotated[
    str | None,
    strawberry.argument(description="The asset class; needed only where a symbol is ambiguous."),
]


# Resolvers return live events whose tail many viewers share; to Strawberry they are generators.
@strawberry.type(description="Everything that can be watched.")
class Subscription:
    @strawberry.subscription(
        description="The bars of a series as they close, are revised and run. It begins with the "
        "newest 500, or with exactly what was closed or revised since `after`. It does not miss, "
        "repeat or misstate a closed bar, at any number of reconnections; bars that are sent again "
        "replace what they equal."
    )
    async def bars(
        self,
        info: Info,
        series: Annotated[SeriesInput, strawberry.argument(description="Which bars.")],
        after: Annotated[
            str | None,
            strawberry.argument(
                description="A cursor from `CandleWindow` or from any event of these bars: what "
                "followed it is sent first. It may be an old one; what is sent again does no harm."
            ),
        ] = None,
    ) -> AsyncGenerator[BarEvent, None]:
        shared = info.context.shared
        events = await live_bars(shared.directory, shared.live, series.asked(), after)
        presented = Presented(events, bar_event(events.series))
        return cast(AsyncGenerator[BarEvent, None], presented)

    @strawberry.subscription(
        description="Trades as they happen, those of one moment together. Nothing is told twice; "
        "what is lost while a connection is down is not told again."
    )
    async def trades(
        self, info: Info, provider: ProviderName, symbol: SymbolName, market: Market = None
    ) -> AsyncGenerator[list[TradeType], None]:
        shared = info.context.shared
        named = Named(provider, symbol, market)
        events = await live_trades(shared.directory, shared.live, named)
        return cast(AsyncGenerator[list[TradeType], None], Presented(events, trades_of))

    @strawberry.subscription(
        description="An order book: a snapshot, then what changes, at most ten times a second."
    )
    async def order_book(
        self,
        info: Info,
        provider: ProviderName,
        symbol: SymbolName,
        market: Market = None,
        depth: Annotated[
            int | None,
            strawberry.argument(description=f"Levels a side, from 1 to {MAX_DEPTH}."),
        ] = _DEPTH,
    ) -> AsyncGenerator[OrderBookEvent, None]:
        shared = info.context.shared
        named = Named(provider, symbol, market)
        levels = _DEPTH if depth is None else depth
        events = await live_book(shared.directory, shared.live, named, levels)
        return cast(AsyncGenerator[OrderBookEvent, None], Presented(events, book_event))

    @strawberry.subscription(
        description="The newest prices of some instruments of one provider, each whenever it moves."
    )
    async def ticker(
        self,
        info: Info,
        provider: ProviderName,
        symbols: Annotated[
            list[str], strawberry.argument(description="The provider's names, 50 at the most.")
        ],
        market: Market = None,
    ) -> AsyncGenerator[Ticker, None]:
        shared = info.context.shared
        events = await live_tickers(shared.directory, shared.live, provider, symbols, market)
        return cast(AsyncGenerator[Ticker, None], Presented(events, ticker_of))

    @strawberry.subscription(
        description="How far a backfill is: now, then whenever that changes, until it is over."
    )
    async def backfill_progress(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The id of the backfill.")],
    ) -> AsyncGenerator[BackfillProgress, None]:
        events = await live_progress(info.context.shared.backfills, uuid_in(id, "Backfill"))
        presented = Presented(events, BackfillProgress.of)
        return cast(AsyncGenerator[BackfillProgress, None], presented)
