"""What there is one upstream of: a stream of one listing at one provider, by a name all share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

import orjson

from datasources.found import Base
from market.errors import UnknownName
from market.instrument import Adjustment, Listing
from market.timeframe import Timeframe


class Kind(StrEnum):
    """What a stream carries."""

    BARS = "bars"
    TRADES = "trades"
    BOOK = "book"
    TICKER = "ticker"


@dataclass(frozen=True, slots=True)
class FeedKey:
    """A stream by what it carries; *timeframe* and *native* only where it carries bars of a base.

    A listing's fields are free text, so keys are compared and sent as JSON, never glued together.
    """

    kind: Kind
    listing: Listing
    timeframe: Timeframe | None = None
    native: bool = False

    @classmethod
    def of(cls, base: Base) -> FeedKey:
        return cls(Kind.BARS, base.listing, base.timeframe, base.native)

    @property
    def base(self) -> Base:
        """The base whose bars are carried; only for `Kind.BARS`."""
        assert self.timeframe is not None
        return Base(self.listing, self.timeframe, self.native)

    @property
    def name(self) -> str:
        """A short name that no other key has, for channels and leases."""
        return f"{self.kind}:{hashlib.blake2b(self.packed(), digest_size=16).hexdigest()}"

    def packed(self) -> bytes:
        listing = self.listing
        return orjson.dumps(
            [
                self.kind,
                listing.provider,
                listing.market,
                listing.symbol,
                listing.adjustment,
                listing.feed,
                listing.dataset,
                None if self.timeframe is None else str(self.timeframe),
                self.native,
            ]
        )

    @classmethod
    def unpacked(cls, packed: bytes) -> FeedKey | None:
        """Return the key that was packed; None for what another version packed."""
        try:
            kind, provider, market, symbol, adjustment, feed, dataset, frame, native = orjson.loads(
                packed
            )
            return cls(
                Kind(kind),
                Listing(
                    provider,
                    market,
                    symbol,
                    None if adjustment is None else Adjustment(adjustment),
                    feed,
                    dataset,
                ),
                None if frame is None else Timeframe.parse(frame),
                bool(native),
            )
        except (ValueError, TypeError, UnknownName):
            return None
