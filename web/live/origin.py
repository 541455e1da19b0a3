"""Which pages may open a socket here.

Browsers let any page open a WebSocket to any server and say in `Origin` which page it is. Programs
send none.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


class Origins:
    """The origins that may connect: our own, and those in *allowed* such as https://a.example."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Return whether a page of *origin* may connect to what it called *host*."""
        if origin is None:
            return True
        if origin.lower() in self._allowed:
            return True
        try:
            page = urlsplit(origin)
            # Behind a proxy that ends TLS we do not know our own scheme: the page's stands in.
            asked = urlsplit(f"{page.scheme}://{host}")
            default = _PORTS[page.scheme]
            ours = (asked.hostname, asked.port or default)
            return page.hostname is not None and (page.hostname, page.port or default) == ours
        except (KeyError, ValueError):
            return False
