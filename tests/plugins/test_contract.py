"""The simulated market and the replay keep the provider contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from market.clock import FixedClock
from market.window import DAY, HOUR, MINUTE, Window
from plugins.base import History, Provider
from plugins.replay import Anchor, ReplayProvider, load
from plugins.sim import SimProvider
from tests.plugins.contract import Offered, ProviderContract, TradesContract
from tests.plugins.stream_contract import Live, StreamContract

TUESDAY = 1_736_208_000_000
"""2025-01-07 00:00 UTC, a day on which New York trades."""


async def offered_of(provider: Provider, symbol: str, window: Window) -> Offered:
    assert isinstance(provider, History)
    instrument = next(one for one in await provider.symbols() if one.symbol == symbol)
    return Offered(provider, instrument, provider.history(instrument).frames[0], window)


async def live_of(
    provider: Provider, symbol: str, window: Window, clock: FixedClock, *kinds: str
) -> Live:
    """Return *provider* with a market that goes on by moving *clock*, a third of a bar a time."""
    offered = await offered_of(provider, symbol, window)

    async def advance() -> None:
        clock.at += offered.frame.timeframe.nominal // 3

    return Live(
        provider,
        offered.instrument,
        offered.frame,
        window,
        advance=advance,
        kinds=frozenset(kinds),
    )


class TestSim(ProviderContract, TradesContract, StreamContract):
    @pytest.fixture(params=["BTC/USDT", "ADA/USDT", "SPY"])
    async def offered(self, request: pytest.FixtureRequest) -> AsyncIterator[Live]:
        clock = FixedClock(TUESDAY + 3 * DAY + 15 * HOUR + 12_345)
        provider = SimProvider(clock=clock)
        afternoon = Window(TUESDAY + 13 * HOUR, TUESDAY + 16 * HOUR)
        kinds = ("bars", "trades", "book", "ticker")
        offered = await live_of(provider, request.param, afternoon, clock, *kinds)
        yield offered
        await offered.aclose()


class TestSimDays(ProviderContract):
    @pytest.fixture(params=["BTC/USDT", "SPY"])
    async def offered(self, request: pytest.FixtureRequest) -> AsyncIterator[Offered]:
        provider = SimProvider(clock=FixedClock(TUESDAY + 3 * DAY + 12_345))
        assert isinstance(provider, History)
        instrument = next(one for one in await provider.symbols() if one.symbol == request.param)
        days = provider.history(instrument).frames[1]
        offered = Offered(provider, instrument, days, Window(TUESDAY - 4 * DAY, TUESDAY + 2 * DAY))
        yield offered
        await offered.aclose()


class TestReplay(ProviderContract, StreamContract):
    @pytest.fixture(params=["csv_MINUTES", "stock_DAYS"])
    async def offered(self, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Live]:
        windows = {
            "csv_MINUTES": write_minutes(tmp_path / "csv_MINUTES_1m.csv"),
            "stock_DAYS": write_days(tmp_path / "stock_DAYS_1d.csv"),
        }
        now = TUESDAY + 60 * MINUTE + 30_000
        base = FixedClock(0)
        anchor = Anchor(replay_from=now, anchored_at=0, speed=Decimal(1))
        provider = ReplayProvider(await load(tmp_path), base=base, anchor=anchor)
        window = windows[request.param]
        offered = await live_of(provider, request.param, window, base, "bars", "ticker")
        yield offered
        await offered.aclose()


class TestReplayOfRealRecordings(ProviderContract, StreamContract):
    @pytest.fixture(params=["binance_BTCUSDT", "stock_SPY"])
    async def offered(
        self, request: pytest.FixtureRequest, recordings: Path
    ) -> AsyncIterator[Live]:
        windows = {
            "binance_BTCUSDT": Window(TUESDAY, TUESDAY + 3 * HOUR),
            # From 10:00 to 13:00 in New York, on 2013-10-04.
            "stock_SPY": Window(1_380_895_200_000, 1_380_906_000_000),
        }
        window, base = windows[request.param], FixedClock(0)
        anchor = Anchor(replay_from=window.until + 12_345, anchored_at=0, speed=Decimal(1))
        provider = ReplayProvider(await load(recordings), base=base, anchor=anchor)
        offered = await live_of(provider, request.param, window, base, "bars", "ticker")
        yield offered
        await offered.aclose()


def write_minutes(path: Path) -> Window:
    """Write two days of minutes, every seventh without trades, the last hours still to come."""
    times = [TUESDAY - DAY + n * MINUTE for n in range(2 * 1440) if n % 7]
    write(path, times)
    return Window(TUESDAY - DAY + 600 * MINUTE, TUESDAY - DAY + 900 * MINUTE)


def write_days(path: Path) -> Window:
    """Write the weekdays of eight weeks, two of which are to come, labelled at midnight UTC."""
    times = [TUESDAY - 48 * DAY + n * DAY for n in range(60) if n % 7 not in {3, 4}]
    write(path, times)
    return Window(TUESDAY - 40 * DAY, TUESDAY - 10 * DAY)


def write(path: Path, times: list[int]) -> None:
    rows = (f"{time},{n + 2},{n + 4},{n + 1},{n + 3},{n}\n" for n, time in enumerate(times))
    path.write_text("timestamp_ms,open,high,low,close,volume\n" + "".join(rows))
