"""A local exchange for tests: binance's and kraken's calls and streams, faults on demand.

async with exchange_server(now=NOON) as server:
    provider = CcxtProvider("binance", clock=clock, configure=server.configure)
    server.faults.refuse(429, retry_after=5)
    await server.live.trade("BTC/USDT", Dealt(1, NOON, 1000.0, 0.5))
    await server.live.drop()
"""

from tests.exchange_server.accounts import Account
from tests.exchange_server.faults import Faults
from tests.exchange_server.live import Dealt, Live
from tests.exchange_server.market import Market
from tests.exchange_server.server import Call, ExchangeServer, exchange_server

__all__ = [
    "Account",
    "Call",
    "Dealt",
    "ExchangeServer",
    "Faults",
    "Live",
    "Market",
    "exchange_server",
]
