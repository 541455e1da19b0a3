"""The queries of the API, each a thin face of one resolver."""

from __future__ import annotations

from typing import Annotated

import strawberry
from strawberry.types.nodes import SelectedField

from market.errors import UnknownName
from market.instrument import InstrumentType
from resolvers.backfills import FIRST, backfill_page
from resolvers.candles import LAST, cut_of, request_for
from resolvers.paging import paged
from schema.audit import AuditQueries
from schema.backfills import BackfillConnection, BackfillType
from schema.candles import CandleWindow, SeriesInput
from schema.catalogue import (
    InstrumentRules,
    MarketType,
    ProviderType,
    Since,
    SymbolConnection,
    SymbolType,
    Until,
    providers_of,
)
from schema.context import Context, Info, Shared
from schema.credentials import CredentialQueries, found_credential
from schema.identity.roots import IdentityQueries, own_node
from schema.node import Node, parts_in, uuid_in
from schema.permissions import NODES
from schema.saved.layouts import found_layout
from schema.saved.presets import found_preset
from schema.saved.roots import SavedWorkQueries

_FIRST = 50

MarketName = Annotated[
    str | None, strawberry.argument(description="Only this asset class: `crypto`, `stocks`.")
]
ProviderName = Annotated[str, strawberry.argument(description="The provider's name: `sim`.")]


@strawberry.type(description="Everything that can be read.")
class Query(IdentityQueries, CredentialQueries, SavedWorkQueries, AuditQueries):
    @strawberry.field(description="The asset classes on offer.")
    def markets(self, info: Info) -> list[MarketType]:
        return [MarketType.of(name) for name in info.context.shared.directory.markets()]

    @strawberry.field(description="Who supplies bars and symbols; a disabled one says why it is.")
    def providers(self, info: Info, market: MarketName = None) -> list[ProviderType]:
        directory = info.context.shared.directory
        if market is not None:
            directory.check_market(market, directory.markets())
        return providers_of(info.context, market)

    @strawberry.field(description="What a provider has prices of, by market and symbol.")
    async def symbols(
        self,
        info: Info,
        provider: ProviderName,
        market: MarketName = None,
        search: Annotated[
            str | None,
            strawberry.argument(description="Only those whose symbol, base or quote contains it."),
        ] = None,
        type: Annotated[
            InstrumentType | None, strawberry.argument(description="Only this kind of contract.")
        ] = None,
        first: Annotated[
            int | None, strawberry.argument(description="At most so many, from the start.")
        ] = _FIRST,
        after: Annotated[
            str | None, strawberry.argument(description="Only those after this cursor.")
        ] = None,
        last: Annotated[
            int | None, strawberry.argument(description="At most so many, from the end.")
        ] = None,
        before: Annotated[
            str | None, strawberry.argument(description="Only those before this cursor.")
        ] = None,
    ) -> SymbolConnection:
        found = await info.context.shared.directory.search(
            provider, market=market, text=search, type=type
        )
        if last is not None and not _is_given(info, "first"):
            # The default of `first` is for those who count from neither end.
            first = None
        elif first is None:
            first = _FIRST
        page = paged(
            found,
            lambda instrument: (instrument.market, instrument.symbol),
            first=first,
            after=after,
            last=last,
            before=before,
        )
        return SymbolConnection.of(page)

    @strawberry.field(description="The rules by which something is traded.")
    async def instrument(
        self,
        info: Info,
        provider: ProviderName,
        symbol: Annotated[str, strawberry.argument(description="The provider's name of it.")],
        market: MarketName = None,
    ) -> InstrumentRules | None:
        directory = info.context.shared.directory
        return InstrumentRules.of(await directory.instrument(provider, symbol, market))

    @strawberry.field(
        description="The bars that open in `since <= time < until`, the newest `last` of them."
    )
    async def candles(
        self,
        info: Info,
        series: Annotated[SeriesInput, strawberry.argument(description="Which bars.")],
        since: Since = None,
        until: Until = None,
        last: Annotated[
            int | None,
            strawberry.argument(
                description="The newest so many of the selection, the forming bar included."
            ),
        ] = LAST,
        include_forming: Annotated[
            bool | None,
            strawberry.argument(description="Whether the bar that is running now is included."),
        ] = True,
    ) -> CandleWindow:
        shared = info.context.shared
        cut = cut_of(since, until, last, include_forming)
        request = await request_for(shared.directory, series.asked(), cut, max_bars=shared.max_bars)
        answer = await info.context.candles.load(request)
        return CandleWindow(answer=answer, request=request)

    @strawberry.field(description="The backfill with this id; null if there is none.")
    async def backfill(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Its id.")]
    ) -> BackfillType | None:
        return await _found_backfill(info.context.shared, id)

    @strawberry.field(
        description="Backfills, the newest first. Those that were over long ago are forgotten."
    )
    async def backfills(
        self,
        info: Info,
        first: Annotated[
            int | None, strawberry.argument(description="At most so many, from the newest.")
        ] = FIRST,
        after: Annotated[
            str | None, strawberry.argument(description="Only those older than at this cursor.")
        ] = None,
    ) -> BackfillConnection:
        page = await backfill_page(info.context.shared.backfills, first=first, after=after)
        return BackfillConnection.of(page)

    @strawberry.field(
        description="The entity with this id; null if there is none, or it is somebody else's."
    )
    async def node(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Its id.")]
    ) -> Node | None:
        return await found_node(info.context, id)


def _is_given(info: Info, argument: str) -> bool:
    """Whether the client gave an argument another value than null."""
    field = info.selected_fields[0]
    return isinstance(field, SelectedField) and field.arguments.get(argument) is not None


async def found_node(context: Context, id: strawberry.ID) -> Node | None:
    """Return the entity that a global id names, None for one that nobody has, or another user."""
    named, shared = parts_in(id), context.shared
    rule = NODES.get(named[0]) if named else None
    if rule is None:
        return None
    shared.permissions.check(rule, context.caller)
    directory = shared.directory
    match named:
        case ("Market", name) if name in directory.markets():
            return MarketType.of(name)
        case ("Provider", name) if (entry := directory.entry(name)) is not None:
            return ProviderType.of(entry)
        case ("Symbol", provider, market, symbol):
            try:
                return SymbolType.of(await directory.instrument(provider, symbol, market))
            except UnknownName:
                return None
        case ("Backfill", _):
            return await _found_backfill(shared, id)
        case ("Credential", _):
            return await found_credential(context, id)
        case ("ChartLayout", _):
            return await found_layout(context, id)
        case ("IndicatorPreset", _):
            return await found_preset(context, id)
        case ("User" | "UserSession" | "ApiToken", _):
            return await own_node(context, id)
        case _:
            return None


async def _found_backfill(shared: Shared, id: strawberry.ID) -> BackfillType | None:
    uuid = uuid_in(id, "Backfill")
    found = None if uuid is None else await shared.backfills.get(uuid)
    return None if found is None else BackfillType.of(found)
