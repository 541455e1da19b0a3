"""Tell from a connection who is at its other end.

Nothing that a client writes makes it local: the address of the connection does, and headers can
only take that away. They have to: through a proxy on this machine everybody has its address, and a
page whose name was made to point at this machine (DNS rebinding) calls us by a name that is not
ours.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from resolvers.callers import Caller
from web.limits.proxies import Proxies, counted_as

_OF_PROXIES = {b"forwarded", b"via", b"x-real-ip", b"cf-connecting-ip", b"true-client-ip"}
_PREFIX_OF_PROXIES = b"x-forwarded-"
_LONGEST_NAME = 255
_LONGEST_AGENT = 200
"""Characters kept of what a program calls itself."""
_NO_PROXIES = Proxies()


def caller_of(asked: HTTPConnection, proxies: Proxies = _NO_PROXIES) -> Caller:
    """Return who asks over a connection, for HTTP and WebSockets alike.

    What *proxies* tell decides which address the caller counts under, and never that it is local.
    """
    peer = asked.client.host if asked.client is not None else ""
    if proxies:
        headers = asked.headers
        address = proxies.origin(
            peer,
            forwarded=headers.getlist("forwarded"),
            x_forwarded_for=headers.getlist("x-forwarded-for"),
        )
    else:
        address = counted_as(peer)
    return Caller(local=is_loopback(peer) and _is_direct(asked), address=address)


def with_agent(caller: Caller, asked: HTTPConnection) -> Caller:
    """Return *caller* with what its program calls itself."""
    agent = asked.headers.get("user-agent")
    return caller if agent is None else caller._replace(agent=agent[:_LONGEST_AGENT])


def _is_direct(asked: HTTPConnection) -> bool:
    """Whether no proxy says that it is between, and we are called by a name of this machine."""
    for written, value in asked.scope["headers"]:  # decoding all of them would take much longer
        name = written.lower()
        if name in _OF_PROXIES or name.startswith(_PREFIX_OF_PROXIES):
            return False
        if name == b"host" and not (
            len(value) <= _LONGEST_NAME and _names_this_machine(value.decode("latin-1"))
        ):
            return False
    return True


@lru_cache(maxsize=1_000)
def is_loopback(host: str) -> bool:
    """Whether *host* is an address by which a machine reaches itself; a name never is."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


@lru_cache(maxsize=1_000)
def _names_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    # What ends in .localhost is this machine by RFC 6761; no resolver asks the network for it.
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)
