"""A local exchange for tests: binance's and kraken's public REST, with faults on demand.

async with exchange_server(now=NOON) as server:
    provider = CcxtProvider("binance", clock=clock, configure=server.configure)
    server.faults.refuse(429, retry_after=5)
"""

from tests.exchange_server.faults import Faults
from tests.exchange_server.market import Market
from tests.exchange_server.server import Call, ExchangeServer, exchange_server

__all__ = ["Call", "ExchangeServer", "Faults", "Market", "exchange_server"]
