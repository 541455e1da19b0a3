"""A local Alpaca for tests: its REST and its msgpack streams, as alpaca-py speaks to them.

async with alpaca_server(now=NOON) as server:
    provider = AlpacaProvider(server.keys, clock=clock, addresses=server.addresses)
    server.faults.refuse(429, retry_after=5)
    await server.stream("iex").push(server.bar("AAPL", NOON))
"""

from tests.alpaca_server.faults import Faults
from tests.alpaca_server.market import PAIRS, STOCKS, Asset
from tests.alpaca_server.server import AlpacaServer, Call, alpaca_server
from tests.alpaca_server.stream import StreamEndpoint

__all__ = [
    "PAIRS",
    "STOCKS",
    "AlpacaServer",
    "Asset",
    "Call",
    "Faults",
    "StreamEndpoint",
    "alpaca_server",
]
