"""Any exchange that ccxt speaks to, as a provider of symbols and past bars.

`client` owns the connection (loading, throttle, retries), `paging` decides what an exchange's pages
prove, `instruments` translates its rules, and `provider` puts them behind the contract.
"""

from plugins.ccxt_exchange.provider import CcxtProvider

__all__ = ["CcxtProvider"]
