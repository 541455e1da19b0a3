"""Try a user's keys at an exchange: one call for the balance, by a client of these keys alone."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Mapping
from typing import Any

from market.errors import ProviderUnavailable
from plugins.ccxt_exchange.client import Configure
from plugins.credentials import KeyPermission, KeysRefused, SharesTurns, VenueKeys

_ASKED_FOR_BESIDES = ("password", "uid")
"""What ccxt calls the third thing that some exchanges want."""
_ALONE = frozenset({"apiKey", "secret", *_ASKED_FOR_BESIDES})
# Only prices of spot markets, read without keys: what else there is would take further calls.
_BINANCE_OPTIONS: Mapping[str, Any] = {
    "defaultType": "spot",
    "fetchMarkets": {"types": ["spot"]},
    "fetchCurrencies": False,
    "fetchMargins": False,
}
_BINANCE_SAYS = {"canTrade": KeyPermission.TRADE, "canWithdraw": KeyPermission.WITHDRAW}
_CLOSE_SECONDS = 2.0
_PAUSE = 60.0
"""Seconds without calls after the exchange said that they were too many."""

log = logging.getLogger(__name__)


class _SecretUnusable(Exception):
    """Nothing can be signed with the secret."""


class CcxtKeyCheck:
    """A `ChecksCredentials` of one exchange."""

    def __init__(
        self,
        exchange_id: str,
        *,
        shares: SharesTurns | None = None,
        configure: Configure | None = None,
        timeout: float = 10.0,
    ) -> None:
        """*shares* is who else calls this exchange: calls wait for their turn together.

        *timeout* in seconds bounds each of a few calls.
        """
        self._id = exchange_id
        self._shares = shares
        self._configure = configure
        self._timeout = timeout

    async def check(self, keys: VenueKeys) -> tuple[KeyPermission, ...]:
        """Return what *keys* may do: to read the balance, and what the exchange tells besides."""
        exchange = await asyncio.to_thread(self._load)
        failure: KeysRefused | ProviderUnavailable | None = None
        try:
            self._give(exchange, keys)
            balance = await exchange.fetch_balance()
        except (KeysRefused, ProviderUnavailable) as refused:
            failure = refused
        except Exception as error:
            # What ccxt raises quotes addresses, answers and at times what it sent.
            failure = _failure(self._id, error)
        finally:
            await _close(exchange)
        if failure is not None:
            # Raised out here, so that what ccxt raised does not come along as its context.
            raise failure
        return self._permissions(balance)

    def _load(self) -> Any:
        module = importlib.import_module(f"ccxt.async_support.{self._id}")
        listed = getattr(module, self._id)
        made = type(self._id, (_Quiet, listed), {"__doc__": listed.__doc__})
        exchange = made({"enableRateLimit": True, "timeout": int(self._timeout * 1000)})
        # Nothing that a client with keys says of its calls is for a log.
        exchange.logger = _SILENT
        if "fetchMargins" in exchange.options:
            exchange.options |= _BINANCE_OPTIONS
        return exchange

    def _give(self, exchange: Any, keys: VenueKeys) -> None:
        """Give the exchange its keys. Raises `KeysRefused` where they cannot be all it wants."""
        wanted = {name for name, needed in exchange.requiredCredentials.items() if needed}
        if not wanted <= _ALONE:
            raise KeysRefused(self._id, "keys of its kind cannot be kept here")
        if keys.testnet:
            try:
                exchange.set_sandbox_mode(True)
            except Exception:
                # Of venues without one ccxt says so, or trips over addresses that are not there.
                raise KeysRefused(self._id, "it has no testnet") from None
        elif self._shares is not None:
            # Testnets count for themselves. That the exchange refuses a key for its own calls says
            # nothing of ours, so a pause is taken over from market data and not given to it.
            exchange.throttle = self._shares.turn
        if self._configure:
            self._configure(exchange)
        exchange.apiKey = keys.key.get_secret_value()
        exchange.secret = keys.secret.get_secret_value()
        for name in _ASKED_FOR_BESIDES:
            if name not in wanted:
                continue
            if keys.aux is None:
                raise KeysRefused(self._id, "it wants a passphrase or user number besides")
            setattr(exchange, name, keys.aux.get_secret_value())

    def _permissions(self, balance: Any) -> tuple[KeyPermission, ...]:
        said = balance.get("info") if isinstance(balance, dict) else None
        if not isinstance(said, dict | list) or said == {}:
            raise ProviderUnavailable(self._id, "its answer could not be read")
        allowed = [KeyPermission.READ]
        if isinstance(said, dict):
            allowed += [allows for name, allows in _BINANCE_SAYS.items() if said.get(name) is True]
        return tuple(allowed)


class _Quiet:
    """An exchange that tells a secret which cannot sign from an answer that cannot be read."""

    def sign(self, *arguments: Any, **named: Any) -> Any:
        from ccxt.base import errors  # noqa: PLC0415  # loaded by now, costly before

        try:
            return super().sign(*arguments, **named)  # type: ignore[misc]  # mixed into an exchange
        except errors.BaseError:
            raise
        except Exception:
            # The parser of the secret may quote it.
            raise _SecretUnusable from None

    async def fetch(self, *arguments: Any, **named: Any) -> Any:
        answer = await super().fetch(*arguments, **named)  # type: ignore[misc]  # mixed into an exchange
        if not isinstance(answer, dict | list):
            # ccxt would take it for an account without anything.
            raise TypeError("the answer is not JSON")
        return answer


def _failure(exchange_id: str, error: Exception) -> KeysRefused | ProviderUnavailable:
    from ccxt.base import errors  # noqa: PLC0415  # loaded by now, costly before

    match error:
        case _SecretUnusable():
            return KeysRefused(exchange_id, "nothing can be signed with the secret")
        case errors.PermissionDenied():
            return KeysRefused(exchange_id, "the key may not read the account from here")
        case errors.AccountSuspended():
            return KeysRefused(exchange_id, "the account is suspended")
        case errors.ExchangeError() if _is_about_keys(error):
            return KeysRefused(
                exchange_id, "it does not know the key, or the secret does not belong to it"
            )
        case errors.NotSupported():
            reason = "it cannot be asked for a balance there"
        case errors.RateLimitExceeded() | errors.DDoSProtection():
            return ProviderUnavailable(exchange_id, "rate limited", retry_after=_PAUSE)
        case errors.RequestTimeout() | TimeoutError():
            reason = "it did not answer in time"
        case errors.OnMaintenance():
            reason = "it is under maintenance"
        case errors.InvalidNonce():
            reason = "it does not agree with us about the time, or the key is in use elsewhere"
        case errors.NetworkError():
            reason = "it cannot be reached or answers with failures"
        case errors.ExchangeError():
            reason = f"it refused the request ({type(error).__name__})"
        case _:
            reason = "its answer could not be read"
    return ProviderUnavailable(exchange_id, reason)


def _is_about_keys(error: Exception) -> bool:
    from ccxt.base import errors  # noqa: PLC0415  # loaded by now, costly before

    # Of some venues' words for a wrong signature ccxt does not know what they mean.
    return isinstance(error, errors.AuthenticationError) or "signature" in str(error).casefold()


async def _close(exchange: Any) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await exchange.close()
    except Exception as error:
        # The connections end with the object; the answer counts.
        log.warning("a client of %s did not close (%s)", exchange.id, type(error).__name__)


def _silent() -> logging.Logger:
    """Return a logger outside the tree of loggers, which no configuration makes speak."""
    logger = logging.Logger("ccxt with keys")  # noqa: LOG001 - one that others cannot find
    logger.addHandler(logging.NullHandler())
    return logger


_SILENT = _silent()
