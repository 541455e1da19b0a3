"""One exchange's connection: loaded when first used, throttled, retried, its failures in our words.

There is one client an exchange in a process, so everyone shares its throttle and, once the exchange
says "too many requests", its pause. One object of ccxt serves calls and streams: the class of
ccxt.pro is that of ccxt.async_support with `watch_*` added, importing it costs 6 MB more of 94 and
no time, and the snapshots that order books begin with pass the same throttle as all calls.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from market.clock import Clock
from market.errors import ProviderUnavailable
from plugins.ccxt_exchange.binance_wire import BinanceWired
from plugins.ccxt_exchange.catalogue import family_of
from plugins.ccxt_exchange.kraken_wire import KrakenWired
from plugins.ccxt_exchange.wire import ConnectionLost, Wired

ATTEMPTS = 3
"""How often one call is tried in all."""
LONGEST_PAUSE = 10.0
"""Seconds that a caller waits because the exchange asked for it; beyond, it gets an error."""
QUEUE_SECONDS = 20.0
"""How long a call may wait for its turn at the throttle, besides the time-out of its answer."""
_BACKOFF = 0.5
# By the oldest ancestor in ccxt.pro, what is known of its sockets.
_WIRES: Mapping[str, type[Wired]] = {"binance": BinanceWired, "kraken": KrakenWired}
_SECONDS = re.compile(r"\d{1,9}(\.\d+)?", re.ASCII)

Configure = Callable[[Any], None]
Sleep = Callable[[float], Awaitable[None]]


class SymbolRefused(Exception):
    """The exchange says that it does not list the symbol."""


class BookBroken(Exception):
    """The order book that was kept does not add up; it has to begin anew."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """What went wrong with a call. *passing* faults are worth another try."""

    reason: str
    passing: bool = True
    rate_limited: bool = False


class ExchangeClient:
    """The calls that a provider of market data makes.

    All raise `ProviderUnavailable`, whose reason never quotes the exchange's answer or a URL.
    """

    def __init__(
        self,
        exchange_id: str,
        *,
        clock: Clock,
        configure: Configure | None,
        timeout: float,
        sleep: Sleep,
    ) -> None:
        self._id = exchange_id
        self._clock = clock
        self._configure = configure
        self._timeout = timeout
        self._sleep = sleep
        self._exchange: Any = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._paused_until = 0

    async def open(self) -> Any:
        """Return the ccxt exchange, loading its code in a thread the first time."""
        async with self._opening:
            if self._closed:
                raise ProviderUnavailable(self._id, "it was closed")
            if self._exchange is None:
                self._exchange = await asyncio.to_thread(self._load)
            return self._exchange

    async def ready(self) -> Any:
        """Return the ccxt exchange once it wants to be asked."""
        await self._pause()
        return await self.open()

    async def pushed(self, watching: Awaitable[Any]) -> Any:
        """Return what *watching*, a `watch_*` call, gives next. Not tried again.

        Raises `ConnectionLost`, `BookBroken`.
        """
        try:
            return await watching
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # ccxt cancels whoever waits for a connection that it closes.
            raise ConnectionLost(self._id) from error
        except (BookBroken, ProviderUnavailable):
            raise
        except Exception as error:
            raise self._push_failure(error) from error

    async def load_markets(self) -> Any:
        """Return the exchange with its markets read anew."""
        await self._call("load_markets", True)
        return self._exchange

    async def time(self) -> tuple[int, int] | None:
        """Return the exchange's time and how long its answer took, in milliseconds. Tried once.

        None if the exchange does not tell its time.
        """
        exchange = await self.open()
        if exchange.has.get("fetchTime") is not True:
            return None
        told = await self._call("fetch_time", attempts=1)
        return None if told is None else (int(told), exchange.round_trip)

    async def candles(
        self, symbol: str, frame: str, *, since: int, count: int, until: int | None
    ) -> list[Any]:
        """Return rows of (time, open, high, low, close, volume) as the exchange has them.

        *until* (inclusive) is passed on only if ccxt documents it for this exchange: others send it
        along as it is, and some refuse what they do not know. Raises `SymbolRefused`.
        """
        exchange = await self.open()
        takes_until = "params.until" in (type(exchange).fetch_ohlcv.__doc__ or "")
        params: Mapping[str, int] = {"until": until} if until is not None and takes_until else {}
        rows = await self._call("fetch_ohlcv", symbol, frame, since, count, params)
        return list(rows or ())

    async def aclose(self) -> None:
        """Close the connections; no call can be made afterwards."""
        self._closed = True
        async with self._opening:
            exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.close()

    def _load(self) -> Any:
        family = family_of(self._id)
        package = "async_support" if family is None else "pro"
        listed = getattr(importlib.import_module(f"ccxt.{package}.{self._id}"), self._id)
        wire = () if family is None else (_WIRES.get(family, Wired),)
        # Under the exchange's own name, which ccxt's messages and option look-ups go by.
        made = type(self._id, (*wire, _Watched, listed), {"__doc__": listed.__doc__})
        exchange = made({"enableRateLimit": True, "timeout": int(self._timeout * 1000)})
        if self._configure:
            self._configure(exchange)
        return exchange

    async def _call(self, method: str, *arguments: Any, attempts: int = ATTEMPTS) -> Any:
        exchange = await self.open()
        attempt = 1
        while True:
            await self._pause()
            try:
                async with asyncio.timeout(self._timeout + QUEUE_SECONDS):
                    return await getattr(exchange, method)(*arguments)
            except Exception as error:
                # Whatever an exchange sends may surface anywhere in ccxt's parsers.
                fault = _fault(error)
                wait = self._rate_limit(exchange, attempt) if fault.rate_limited else None
                if not fault.passing or attempt == attempts:
                    raise ProviderUnavailable(self._id, fault.reason, retry_after=wait) from error
            if wait is None:
                await self._sleep(_backoff(attempt))
            attempt += 1

    async def _pause(self) -> None:
        """Wait while the exchange wants no calls. Raises `ProviderUnavailable` if that is long."""
        seconds = (self._paused_until - self._clock.now()) / 1000
        if seconds > LONGEST_PAUSE:
            raise ProviderUnavailable(self._id, "rate limited", retry_after=seconds)
        if seconds > 0:
            await self._sleep(seconds)

    def _push_failure(self, error: Exception) -> Exception:
        from ccxt.base import errors  # noqa: PLC0415  # loaded by now, costly before

        if isinstance(error, errors.InvalidNonce):
            return BookBroken(str(error))
        try:
            fault = _fault(error)
        except SymbolRefused:
            return ProviderUnavailable(self._id, "it does not push this symbol")
        if fault.rate_limited:
            wait = self._rate_limit(self._exchange, 1)
            return ProviderUnavailable(self._id, fault.reason, retry_after=wait)
        # Time-outs among these: ccxt raises them when the other side answers no pings.
        if isinstance(error, errors.NetworkError) and not isinstance(error, errors.OnMaintenance):
            return ConnectionLost(self._id)
        return ProviderUnavailable(self._id, fault.reason)

    def _rate_limit(self, exchange: Any, attempt: int) -> float:
        """Make every caller pause, and return for how many seconds."""
        now = self._clock.now()
        # Nothing has run since ccxt kept the headers of the answer that it raised this error for.
        told = _retry_after(exchange.last_response_headers or {}, now=now)
        seconds = _backoff(attempt) if told is None else told
        self._paused_until = max(self._paused_until, now + int(seconds * 1000))
        return seconds


class _Watched:
    """An exchange that times its answers, and refuses those that ccxt would read as fewer rows.

    Its parsers take text for an empty list, and leave out rows whose time they cannot read.
    """

    round_trip = 0
    """Milliseconds that the newest answer took, without the wait for the throttle."""

    async def fetch(self, *arguments: Any, **named: Any) -> Any:
        loop = asyncio.get_running_loop()
        sent = loop.time()
        answer = await super().fetch(*arguments, **named)  # type: ignore[misc]  # mixed into an exchange
        self.round_trip = int((loop.time() - sent) * 1000)
        if not isinstance(answer, dict | list):
            raise TypeError("the answer is not JSON")
        return answer

    def parse_ohlcv(self, *arguments: Any, **named: Any) -> Any:
        row = super().parse_ohlcv(*arguments, **named)  # type: ignore[misc]  # mixed into an exchange
        if not row[0]:
            raise TypeError("a row has no time")
        return row


def _fault(error: Exception) -> _Fault:
    from ccxt.base import errors  # noqa: PLC0415  # loaded by now, costly before

    match error:
        case ProviderUnavailable():
            raise error
        case errors.BadSymbol():
            raise SymbolRefused from error
        case errors.RateLimitExceeded() | errors.DDoSProtection():
            return _Fault("rate limited", rate_limited=True)
        case errors.RequestTimeout() | TimeoutError():
            return _Fault("it did not answer in time")
        case errors.OnMaintenance():
            return _Fault("it is under maintenance")
        case errors.NetworkError():
            return _Fault("it cannot be reached or answers with failures")
        case errors.BaseError() if error.__cause__ is not None:
            # Only ccxt's transport chains a cause: the connection broke in the middle.
            return _Fault("the connection broke")
        case errors.ExchangeError():
            return _Fault(f"it refused the request ({type(error).__name__})", passing=False)
        case _:
            return _Fault("its answer could not be read")


def _retry_after(headers: Mapping[str, str], *, now: int) -> float | None:
    """Return the seconds in a `Retry-After` header, which holds a count or a date."""
    told = next((v for k, v in headers.items() if k.casefold() == "retry-after"), "").strip()
    if _SECONDS.fullmatch(told):
        return float(told)
    try:
        at = parsedate_to_datetime(told)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.fromtimestamp(now / 1000, UTC)).total_seconds())


def _backoff(attempt: int) -> float:
    jitter = random.uniform(0.5, 1.5)  # noqa: S311  # spreads retries, keeps no secret
    return float(_BACKOFF * 2 ** (attempt - 1) * jitter)
