"""Users' keys at local venues that check signatures, through the real ccxt and alpaca-py."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from market.clock import FixedClock
from market.errors import ProviderUnavailable
from plugins.alpaca.key_check import AlpacaKeyCheck
from plugins.ccxt_exchange import CcxtProvider
from plugins.ccxt_exchange.key_check import CcxtKeyCheck
from plugins.credentials import ChecksCredentials, KeysRefused, VenueKeys
from tests.alpaca_server import AlpacaServer, alpaca_server
from tests.alpaca_server.rest import LIVE_ACCOUNT, PAPER_ACCOUNT
from tests.exchange_server import Account, ExchangeServer, exchange_server

NOW = 1_700_000_020_000
KEY, SECRET = "the-key-of-a-user", "the-secret-of-a-user"
KRAKEN_SECRET = base64.b64encode(b"the secret of a user").decode()
PAPER_KEY = "PKUSERUSERUSERUSER"


def keys(key: str = KEY, secret: str = SECRET, *, testnet: bool = False) -> VenueKeys:
    return VenueKeys(SecretStr(key), SecretStr(secret), testnet=testnet)


@pytest.fixture
async def exchanges() -> AsyncIterator[ExchangeServer]:
    async with exchange_server(now=NOW) as server:
        server.accounts[KEY] = Account(SECRET)
        yield server


@pytest.fixture
async def alpaca() -> AsyncIterator[AlpacaServer]:
    async with alpaca_server(now=NOW) as server:
        server.accounts[LIVE_ACCOUNT, (KEY, SECRET)] = {"status": "ACTIVE"}
        server.accounts[PAPER_ACCOUNT, (PAPER_KEY, SECRET)] = {"status": "ACTIVE"}
        yield server


def binance(server: ExchangeServer, **others: float) -> CcxtKeyCheck:
    return CcxtKeyCheck("binance", configure=server.configure, **others)


def at_alpaca(server: AlpacaServer, **others: float) -> AlpacaKeyCheck:
    return AlpacaKeyCheck(live=server.url, paper=f"{server.url}/paper", **others)


@pytest.mark.parametrize(
    ("said", "permissions"),
    [
        ({"canTrade": True, "canWithdraw": False}, ["read", "trade"]),
        ({"canTrade": False, "canWithdraw": False}, ["read"]),
        ({"canTrade": True, "canWithdraw": True}, ["read", "trade", "withdraw"]),
        ({"canTrade": "true", "canWithdraw": None}, ["read"]),
        ({"accountType": "SPOT"}, ["read"]),
    ],
)
async def test_binance_tells_what_a_key_may_do(
    exchanges: ExchangeServer, said: dict[str, object], permissions: list[str]
) -> None:
    exchanges.accounts[KEY].said = said

    assert list(await binance(exchanges).check(keys())) == permissions


async def test_amounts_that_cannot_be_read_do_not_make_a_good_key_a_bad_one(
    exchanges: ExchangeServer,
) -> None:
    exchanges.accounts[KEY].balances = [{"asset": "BTC", "free": None}, {"asset": "ETH"}]

    assert "read" in await binance(exchanges).check(keys())


@pytest.mark.parametrize("wrong", [keys(key="unknown-key"), keys(secret="wrong-secret")])
async def test_a_wrong_key_or_secret_is_refused(
    exchanges: ExchangeServer, wrong: VenueKeys
) -> None:
    with pytest.raises(KeysRefused, match="does not know the key"):
        await binance(exchanges).check(wrong)


@pytest.mark.parametrize("testnet", [False, True])
async def test_testnet_keys_open_the_testnet_alone(
    exchanges: ExchangeServer, testnet: bool
) -> None:
    exchanges.accounts[KEY].world = "-testnet"
    check = binance(exchanges)

    if testnet:
        await check.check(keys(testnet=True))
    else:
        with pytest.raises(KeysRefused):
            await check.check(keys())

    assert {call.exchange for call in exchanges.calls} == {
        "binance-testnet" if testnet else "binance"
    }


async def test_another_secret_of_the_same_key_is_not_answered_by_the_last_client(
    exchanges: ExchangeServer,
) -> None:
    check = binance(exchanges)
    await check.check(keys())
    exchanges.accounts[KEY].secret = "rotated"

    with pytest.raises(KeysRefused):
        await check.check(keys())
    await check.check(keys(secret="rotated"))


async def test_calls_with_users_keys_wait_for_their_turn_with_those_for_market_data(
    exchanges: ExchangeServer,
) -> None:
    costs: list[float] = []

    def counted(exchange: Any) -> None:
        exchanges.configure(exchange)
        throttle = exchange.throttle

        async def turn(cost: float | None = None) -> None:
            assert cost is not None
            costs.append(cost)
            await throttle(cost)

        exchange.throttle = turn

    provider = CcxtProvider("binance", clock=FixedClock(NOW), configure=counted)
    check = CcxtKeyCheck("binance", shares=provider, configure=exchanges.configure)
    try:
        await check.check(keys())
        live = len(exchanges.calls)
        exchanges.accounts[KEY].world = "-testnet"
        await check.check(keys(testnet=True))
    finally:
        await provider.aclose()

    assert len(costs) == live > 1
    assert min(costs) > 0


async def test_an_exchange_that_wants_a_pause_is_not_shown_keys_either(
    exchanges: ExchangeServer,
) -> None:
    provider = CcxtProvider("binance", clock=FixedClock(NOW), configure=exchanges.configure)
    check = CcxtKeyCheck("binance", shares=provider, configure=exchanges.configure)
    exchanges.faults.refuse(429, retry_after=60)
    try:
        with pytest.raises(ProviderUnavailable):
            await provider.symbols()
        calls = len(exchanges.calls)

        with pytest.raises(ProviderUnavailable) as paused:
            await check.check(keys())
    finally:
        await provider.aclose()

    assert paused.value.retry_after == 60
    assert len(exchanges.calls) == calls


async def test_kraken_takes_signed_calls_and_tells_no_more_than_that(
    exchanges: ExchangeServer,
) -> None:
    exchanges.accounts[KEY].secret = KRAKEN_SECRET
    check = CcxtKeyCheck("kraken", configure=exchanges.configure)

    assert list(await check.check(keys(secret=KRAKEN_SECRET))) == ["read"]


@pytest.mark.parametrize(
    ("secret", "may_read", "reason"),
    [
        (base64.b64encode(b"another secret").decode(), True, "does not know the key"),
        (KRAKEN_SECRET, False, "may not read the account"),
        ("abc", True, "nothing can be signed"),
    ],
)
async def test_kraken_refuses_for_a_reason(
    exchanges: ExchangeServer, secret: str, may_read: bool, reason: str
) -> None:
    exchanges.accounts[KEY].secret = KRAKEN_SECRET
    exchanges.accounts[KEY].may_read = may_read
    check = CcxtKeyCheck("kraken", configure=exchanges.configure)

    with pytest.raises(KeysRefused, match=reason):
        await check.check(keys(secret=secret))


async def test_a_venue_without_a_testnet_says_so(exchanges: ExchangeServer) -> None:
    check = CcxtKeyCheck("kraken", configure=exchanges.configure)

    with pytest.raises(KeysRefused, match="no testnet"):
        await check.check(keys(testnet=True))

    assert exchanges.calls == []


async def test_a_passphrase_that_a_venue_wants_is_asked_for(exchanges: ExchangeServer) -> None:
    check = CcxtKeyCheck("okx", configure=exchanges.configure)

    with pytest.raises(KeysRefused, match="passphrase"):
        await check.check(keys())


@pytest.mark.parametrize("status", [418, 429])
async def test_a_venue_that_wants_fewer_calls_says_how_long_to_wait(
    exchanges: ExchangeServer, status: int
) -> None:
    exchanges.faults.refuse(status, on="/account")

    with pytest.raises(ProviderUnavailable, match="rate limited") as raised:
        await binance(exchanges).check(keys())

    assert raised.value.retry_after == 60


@pytest.mark.parametrize("body", ["<html>sign in</html>", "null", "7", "{}", ""])
async def test_an_answer_that_is_no_account_proves_nothing(
    exchanges: ExchangeServer, body: str
) -> None:
    exchanges.faults.say(body, on="/account")

    with pytest.raises(ProviderUnavailable):
        await binance(exchanges).check(keys())


async def test_a_venue_that_hangs_is_left_after_its_time(exchanges: ExchangeServer) -> None:
    exchanges.faults.hang(on="/account")

    with pytest.raises(ProviderUnavailable, match="in time"):
        await binance(exchanges, timeout=0.2).check(keys())


@pytest.mark.parametrize(
    ("said", "permissions"),
    [
        ({"status": "ACTIVE"}, ["read", "trade"]),
        ({"status": "ACTIVE", "trading_blocked": True}, ["read"]),
        ({"status": "ACTIVE", "account_blocked": True}, ["read"]),
        ({"status": "ACTIVE", "trade_suspended_by_user": True}, ["read"]),
        ({"status": "ONBOARDING"}, ["read"]),
        ({"status": "ACTIVE", "cash": None, "new_field": {}}, ["read", "trade"]),
    ],
)
async def test_alpaca_tells_what_an_account_may_do(
    alpaca: AlpacaServer, said: dict[str, object], permissions: list[str]
) -> None:
    alpaca.accounts[LIVE_ACCOUNT, (KEY, SECRET)] = said

    assert list(await at_alpaca(alpaca).check(keys())) == permissions


@pytest.mark.parametrize(
    ("key", "paper"), [(PAPER_KEY, False), (KEY, True), ("unknown", False), ("unknown", True)]
)
async def test_alpaca_keys_open_one_of_paper_and_real_money(
    alpaca: AlpacaServer, key: str, paper: bool
) -> None:
    check = at_alpaca(alpaca)
    await check.check(keys(PAPER_KEY, testnet=True))

    with pytest.raises(KeysRefused, match="paper or real money"):
        await check.check(keys(key, testnet=paper))


@pytest.mark.parametrize("answer", ["[]", "{}", '{"status": null}', "no"])
async def test_what_alpaca_says_that_is_no_account_proves_nothing(
    alpaca: AlpacaServer, answer: str
) -> None:
    alpaca.faults.say(answer, on="account")

    with pytest.raises(ProviderUnavailable, match="could not be read"):
        await at_alpaca(alpaca).check(keys())


async def test_alpaca_that_wants_fewer_calls_says_how_long_to_wait(alpaca: AlpacaServer) -> None:
    alpaca.faults.refuse(429, retry_after=7)

    with pytest.raises(ProviderUnavailable) as raised:
        await at_alpaca(alpaca).check(keys())

    assert raised.value.retry_after == 7


async def test_alpaca_that_hangs_is_left_after_its_time(alpaca: AlpacaServer) -> None:
    alpaca.faults.hang()

    with pytest.raises(ProviderUnavailable, match="in time"):
        await at_alpaca(alpaca, timeout=0.2).check(keys())


@pytest.mark.parametrize("fault", ["none", "refused", "signature", "html", "500", "429", "bad pem"])
async def test_neither_logs_nor_failures_quote_keys(
    exchanges: ExchangeServer,
    alpaca: AlpacaServer,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    key, secret = KEY, SECRET
    for faults in (exchanges.faults, alpaca.faults):
        if fault == "html":
            faults.say(f"<html>{KEY} {SECRET}", on="account")
        elif fault in {"500", "429"}:
            faults.refuse(int(fault), on="account")
    if fault == "refused":
        key = "canary-unknown-key"
    if fault == "signature":
        secret = "canary-wrong-secret"
    if fault == "bad pem":
        secret = "-----BEGIN PRIVATE KEY-----canary" + "x" * 200
    checks: list[ChecksCredentials] = [binance(exchanges), at_alpaca(alpaca)]
    told = [caplog.text]
    for check in checks:
        try:
            await check.check(keys(key, secret))
        except (KeysRefused, ProviderUnavailable) as failure:
            told += traceback.format_exception(failure)
            told += [repr(failure), repr(failure.__cause__), repr(failure.__context__)]
    told += [repr(check) for check in checks] + [repr(keys(key, secret))]
    told.append(caplog.text)

    assert not [each for each in told if key in each or secret in each]
