"""The enumerations of the API, each with what its values mean."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TypeVar

import strawberry

from datasources.found import GapReason
from datasources.health import HealthState
from datasources.live.events import FeedState
from datasources.live.tail_events import ResetReason
from db.accounts.permissions import Role, Scope
from db.backfills import BackfillState
from market.instrument import Adjustment, InstrumentType, Session
from plugins.credentials import KeyPermission
from resolvers.summary import Trend

E = TypeVar("E", bound=Enum)


class BarSource(StrEnum):
    """What a bar was made of."""

    MINUTES = "minutes"
    NATIVE = "native"
    TRADES = "trades"


class Capability(StrEnum):
    """What a provider can do."""

    SYMBOLS = "symbols"
    HISTORY = "history"
    TRADES_HISTORY = "trades_history"
    LIVE_BARS = "live_bars"
    LIVE_TRADES = "live_trades"
    LIVE_BOOKS = "live_books"
    LIVE_TICKERS = "live_tickers"


def _described(enum: type[E], description: str, **values: str) -> None:
    """Make *enum* a GraphQL enum whose every value is described."""
    strawberry.enum(enum, description=description)
    definition = enum.__strawberry_definition__  # type: ignore[attr-defined]  # the decorator adds it
    for value in definition.values:
        value.description = values[value.name]


_described(
    Session,
    "Which part of a trading day counts. What trades around the clock has only ALL.",
    REGULAR="From the opening to the closing bell; buckets of hours count from the opening.",
    EXTENDED="Pre-market, regular and post-market hours as one session.",
    ALL="Whatever was traded; buckets of hours count from local midnight.",
)
_described(
    Adjustment,
    "What past prices were corrected for, where the provider offers it.",
    RAW="As traded.",
    SPLIT="Corrected for splits.",
    DIVIDEND="Corrected for dividends.",
    ALL="Corrected for splits and dividends.",
)
_described(
    InstrumentType,
    "The kind of contract.",
    SPOT="Bought and delivered at once.",
    SWAP="A perpetual contract.",
    FUTURE="A contract with an expiry.",
    OPTION="A right to buy or sell.",
    STOCK="A share or a fund that trades like one.",
    INDEX="A number computed from prices; it cannot be traded.",
    FOREX="One currency against another.",
)
_described(
    GapReason,
    "Why a stretch of a window has no bars.",
    NO_TRADES="Nothing was traded; the provider was asked.",
    SESSION_CLOSED="The exchange was closed.",
    NOT_FETCHED="The provider may have it, but asking would cost more calls than one request may.",
    PROVIDER_UNAVAILABLE="The provider did not answer; ask again later.",
    BEFORE_FIRST="It lies before the first bar the provider offers.",
    AFTER_LAST="It lies after the provider's now.",
    NOT_OFFERED="The provider does not have it.",
    NOT_KEPT="It was dropped: the server does not keep bars that old.",
)
_described(
    Trend,
    "Whether the last price is above, below or at the first.",
    UP="Above.",
    DOWN="Below.",
    FLAT="The same.",
)
_described(
    HealthState,
    "How the last call to a provider went.",
    UNTRIED="This server has not called it yet.",
    OK="It answered.",
    FAILING="It failed.",
)
_described(
    BarSource,
    "What a bar was made of.",
    MINUTES="The provider's minutes: one of them, or computed from all that it spans.",
    NATIVE="The provider's own bar of this length, or of a length that divides it.",
    TRADES="Single trades.",
)
_described(
    Capability,
    "What a provider can do.",
    SYMBOLS="List what it has.",
    HISTORY="Return past bars.",
    TRADES_HISTORY="Return past trades, from which bars under a minute are made.",
    LIVE_BARS="Push bars as they grow and close.",
    LIVE_TRADES="Push trades as they happen.",
    LIVE_BOOKS="Push the order book.",
    LIVE_TICKERS="Push the newest prices.",
)
_described(
    FeedState,
    "How a live feed is doing.",
    LIVE="What happens is sent as it happens.",
    CATCHING_UP="What was missed is being read; it follows.",
    STALLED="Nothing comes although something should, or it cannot be stored. It is tried again.",
    DISCONNECTED="The provider, or what carries its events, is out of reach. It is tried again.",
)
_described(
    ResetReason,
    "Why it cannot be proved that nothing was missed.",
    LOG_PRUNED="The cursor is older than the log of changes.",
    STORE_REPLACED="The cursor is from another candle store.",
    POSITION_UNKNOWN="The cursor names a position that the store does not have, or another series.",
    NO_STORE="The candle store was out of reach when the cursor was made, or is now.",
    OVERFLOW="More happened at once than could be sent.",
)
_described(
    BackfillState,
    "Where a backfill stands.",
    QUEUED="It waits for its turn.",
    RUNNING="It is asking the provider.",
    DONE="It is over: what the provider has of the missing time is stored.",
    CANCELLED="It is over: somebody cancelled it. What was stored stays.",
    FAILED="It is over: it could not go on. What was stored stays.",
)
_described(
    KeyPermission,
    "What a key may do at its venue.",
    READ="Read the account.",
    TRADE="Place and cancel orders.",
    WITHDRAW="Send money away. A key that is only to trade should not have it.",
)
_described(
    Role,
    "What somebody is to this server.",
    ADMIN="Looks after it, and may do all that others may.",
    USER="Trades, runs bots, and makes tokens for programs.",
    READ_ONLY="Looks at what is their own, and touches nothing that trades.",
)
_described(
    Scope,
    "What a token for a program is good for. None lets it change the account.",
    READ="Read what is its owner's.",
    TRADE="Read and place orders.",
    BOTS="Read and run bots.",
)
