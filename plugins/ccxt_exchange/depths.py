"""Which depths of an order book an exchange can be asked for.

Taken from the checks in ccxt 4.5's `watch_order_book`, which refuses any other.
"""

from __future__ import annotations

from collections.abc import Mapping

_DEPTHS: Mapping[str, tuple[int, ...]] = {
    # Binance pushes what changes in the whole book, which begins with a snapshot of so many levels:
    # room to move in before levels are needed that the snapshot did not have.
    "binance": (1_000,),
    "binancecoinm": (1_000,),
    "binanceus": (1_000,),
    "binanceusdm": (1_000,),
    "bitfinex": (25, 100),
    "bitopro": (5, 10, 20, 50, 100, 500, 1_000),
    "bybit": (50, 200, 1_000),
    "bybiteu": (50, 200, 1_000),
    "bybitid": (50, 200, 1_000),
    "htx": (150, 400),
    "kraken": (10, 25, 100, 500, 1_000),
    "kucoin": (100,),
    # 50 levels are for those who pay for them.
    "myokx": (400,),
    "okx": (400,),
    "okxus": (400,),
}


def depth_to_ask(exchange_id: str, depth: int) -> int | None:
    """Return the least depth on offer that gives *depth* levels, or else the greatest on offer.

    None, which is the exchange's own choice, where the depths on offer are not known.
    """
    offered = _DEPTHS.get(exchange_id)
    if offered is None:
        return None
    return next((one for one in offered if one >= depth), offered[-1])
