"""Try a user's keys at Alpaca: one call for the account, by a client of these keys alone."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from market.errors import ProviderUnavailable
from plugins.alpaca.account import Addresses, Keys
from plugins.alpaca.faults import Fault
from plugins.credentials import KeyPermission, KeysRefused, VenueKeys

NAME = "alpaca"
_PAUSE = 60.0
"""Seconds without calls after a refusal that does not say how long to wait."""
_BLOCKS = ("account_blocked", "trading_blocked", "trade_suspended_by_user")


class AlpacaKeyCheck:
    """A `ChecksCredentials` of Alpaca; its testnet is the paper account.

    Alpaca counts calls by account: those of users take nothing from the server's own.
    """

    def __init__(
        self, *, live: str | None = None, paper: str | None = None, timeout: float = 10.0
    ) -> None:
        """*live* and *paper* say where accounts are, by default Alpaca's own addresses.

        *timeout* in seconds bounds the call.
        """
        self._addresses = {False: Addresses(trading=live), True: Addresses(trading=paper)}
        self._timeout = timeout

    async def check(self, keys: VenueKeys) -> tuple[KeyPermission, ...]:
        """Return what the account may do: to be read, and to trade unless something blocks it."""
        # alpaca-py brings pandas: it takes a while.
        rest = await asyncio.to_thread(importlib.import_module, "plugins.alpaca.rest")
        own = Keys(keys.key, keys.secret)
        failure: KeysRefused | ProviderUnavailable | None = None
        account: Any = None
        try:
            account = await asyncio.to_thread(
                rest.account_of,
                own,
                self._addresses[keys.testnet],
                paper=keys.testnet,
                seconds=self._timeout,
            )
        except Fault as fault:
            failure = _failure(fault)
        if failure is not None:
            raise failure
        if not isinstance(account, dict) or not isinstance(account.get("status"), str):
            raise ProviderUnavailable(NAME, "its answer could not be read")
        if account["status"] != "ACTIVE" or any(account.get(block) is True for block in _BLOCKS):
            return (KeyPermission.READ,)
        return (KeyPermission.READ, KeyPermission.TRADE)


def _failure(fault: Fault) -> KeysRefused | ProviderUnavailable:
    if fault.keys_refused:
        return KeysRefused(NAME, "it does not know the keys; each opens either paper or real money")
    wait = (fault.retry_after or _PAUSE) if fault.rate_limited else None
    return ProviderUnavailable(NAME, fault.reason, retry_after=wait)
