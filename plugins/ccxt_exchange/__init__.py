"""Any exchange that ccxt speaks to, as a provider of symbols, past bars, and what it pushes.

`client` owns the connection (loading, throttle, retries), `paging` decides what an exchange's pages
prove, `instruments` translates its rules, and `provider` puts them behind the contract.

What is pushed runs through `wire` (ccxt's sockets, so that nothing is lost in silence, and a module
for each exchange of which more is known), `tap` (what a message means, and a module for each kind),
`pump` (one subscription, shared) and `push_stream` (what one caller reads); `pushes` keeps them
together, and `streams` puts them behind the contract.
"""

from plugins.ccxt_exchange.provider import CcxtProvider

__all__ = ["CcxtProvider"]
