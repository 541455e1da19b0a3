"""Two peers in Python, each an ASGI application over files that the run has written.

`stock()`: Strawberry as it comes, the shipped `Candle` and `CandleColumns` served by its own view,
executor and encoder from objects in memory. `limit()`: the right answer's bytes, ready, behind one
Starlette route: what nothing on this server can exceed.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import strawberry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from strawberry.asgi import GraphQL
from strawberry.schema.config import StrawberryConfig

from schema.candles import Candle, CandleColumns, SeriesInput
from schema.enums import BarSource
from schema.scalars import SCALARS, Timestamp

FOLDER = "BENCH_FOLDER"
BARS = "bars.json"
ANSWERS = "answers"


@strawberry.type
class CandleWindow:
    candles: list[Candle]
    columns: CandleColumns


@strawberry.type
class Symbol:
    symbol: str

    @strawberry.field
    def candles(
        self, timeframe: str, until: Timestamp | None = None, last: int | None = 100
    ) -> CandleWindow:
        return window_of(self.symbol, last or 0)


@strawberry.type
class SymbolEdge:
    node: Symbol


@strawberry.type
class SymbolConnection:
    edges: list[SymbolEdge]


@strawberry.type
class Query:
    @strawberry.field
    def candles(
        self, series: SeriesInput, until: Timestamp | None = None, last: int | None = 500
    ) -> CandleWindow:
        return window_of(series.symbol, last or 0)

    @strawberry.field
    def symbols(self, provider: str, first: int | None = 50) -> SymbolConnection:
        found = list(bars())[:first]
        return SymbolConnection(edges=[SymbolEdge(node=Symbol(symbol=name)) for name in found])


def stock() -> Starlette:
    schema = strawberry.Schema(query=Query, config=StrawberryConfig(scalar_map=SCALARS))
    return Starlette(routes=[Route("/graphql", GraphQL(schema))])


def limit() -> Starlette:
    folder = Path(os.environ[FOLDER]) / ANSWERS
    ready = {path.name: path.read_bytes() for path in folder.iterdir()}

    async def answer(request: Request) -> Response:
        return Response(ready[request.path_params["key"]], media_type="application/json")

    return Starlette(routes=[Route("/{key}", answer, methods=["POST"])])


@cache
def bars() -> dict[str, dict[str, list[Any]]]:
    """Return the columns of every symbol, the watchlist's first."""
    found: dict[str, dict[str, list[Any]]] = orjson.loads(
        (Path(os.environ[FOLDER]) / BARS).read_bytes()
    )
    return found


@cache
def window_of(symbol: str, last: int) -> CandleWindow:
    """Return what is asked for, made once, so that a request pays for GraphQL and nothing else."""
    asked = {name: values[-last:] for name, values in bars()[symbol].items()}
    count = len(asked["time"])
    whole: dict[str, list[Any]] = asked | {
        "trades": [None] * count,
        "vwap": [None] * count,
        "is_closed": [True] * count,
        "revision": [1] * count,
        "updated_at": asked["time"],
        "source": [BarSource.MINUTES] * count,
    }
    rows = zip(*whole.values(), strict=True)
    return CandleWindow(
        candles=[Candle(**dict(zip(whole, row, strict=True))) for row in rows],
        columns=CandleColumns(**whole),
    )
