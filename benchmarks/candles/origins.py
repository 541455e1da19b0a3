"""Whether a server of ours took bars from where it was meant to, by its own counters."""

from __future__ import annotations

import re
from collections import Counter

from benchmarks.candles.load import get
from benchmarks.candles.servers import STORE, UNSEEN, WARM, WINDOWS, Variant

_BARS = re.compile(r'^bargraph_bars_total\{source="(\w+)"\} (\S+)$', re.MULTILINE)
_ENCODED = re.compile(r'^bargraph_cache_bytes\{cache="encoded"\} (\S+)$', re.MULTILINE)
_ORIGIN = {WINDOWS: "cache", UNSEEN: "cache", STORE: "aggregates"}

Origins = Counter[str]
"""Bars by the source they came from."""


class WrongState(Exception):
    """A server that answered from where it was supposed not to."""


async def origins_of(variant: Variant) -> Origins:
    """Return what was counted so far; nothing for other servers.

    Raises `WrongState` for one that keeps what it encoded and must not, or the reverse.
    """
    if not variant.ours:
        return Counter()
    text = (await get(variant.port, "/metrics")).decode()
    encoded = float(found[1]) if (found := _ENCODED.search(text)) else 0.0
    if bool(encoded) and variant.key != WARM:
        raise WrongState(f"{variant.title}: {encoded:.0f} bytes of encoded chunks")
    return Counter({source: int(float(count)) for source, count in _BARS.findall(text)})


def check_origin(variant: Variant, counted: Origins, *, bars: int) -> None:
    """Raise `WrongState` unless all *bars* answered came from where they had to come."""
    meant = _ORIGIN.get(variant.key)
    if meant is not None and counted[meant] < bars:
        raise WrongState(f"{variant.title}: of {bars} bars {shown(counted)}")
    if variant.key == STORE and counted["cache"]:
        raise WrongState(f"{variant.title}: {counted['cache']} bars from the cache")


def shown(counted: Origins) -> str:
    return ", ".join(f"{source} {count:,}" for source, count in sorted(counted.items())) or "none"
