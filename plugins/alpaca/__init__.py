"""Alpaca, as a provider of US stocks and crypto: symbols, past bars and trades, live streams.

`client` makes the calls within the account's budget, and `reading` decides what their pages prove.
`line` is one connection to one of Alpaca's streams, shared by all who listen, and `switchboard`
keeps at most one a stream, because Alpaca allows no more. Only `rest` and `wire` import alpaca-py,
and they are imported when something is first asked.
"""

from plugins.alpaca.account import Addresses, Keys
from plugins.alpaca.provider import AlpacaProvider

__all__ = ["Addresses", "AlpacaProvider", "Keys"]
