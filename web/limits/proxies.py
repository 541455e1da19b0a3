"""Whose address a connection has that comes through proxies.

Each proxy adds, on the right, the address that it was called from. What stands further left may
have been written by anybody, so only hops that trusted proxies told of are believed: from the
right, the first that is not itself such a proxy.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAX_HOPS = 20
_SUBSCRIBER_BITS = 64
"""Of an IPv6 address: who has one address has all that begin with these bits."""


class Proxies:
    """The proxies in *networks*, whose `Forwarded` and `X-Forwarded-For` are believed."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(network_of(network) for network in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def origin(self, peer: str, *, forwarded: Iterable[str], x_forwarded_for: Iterable[str]) -> str:
        """Return under which address to count a connection from *peer*.

        The headers are given as often as they came. Where a request has both and they tell of
        different callers, one of them was passed on unread: it counts as the proxy's own.
        """
        nearest = _parsed(peer)
        if nearest is None or not self._trusts(nearest):
            return counted_as(peer)
        told = {
            self._walk(nearest, hops)
            for hops in (_of_forwarded(forwarded), _of_list(x_forwarded_for))
            if hops
        }
        return counted_as(str(told.pop() if len(told) == 1 else nearest))

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _walk(self, nearest: Address, hops: list[str]) -> Address:
        for hop in hops:
            if (address := _parsed(hop)) is None:
                break  # `unknown`, or hidden: the proxy that says so is all we know
            nearest = address
            if not self._trusts(address):
                break
        return nearest


def network_of(text: str) -> Network:
    """Return the network that *text* names. Raises `ValueError`, also for one that holds all."""
    network = ip_network(text, strict=False)
    if network.prefixlen == 0:
        raise ValueError(f"{text} is everybody")
    return network


@lru_cache(maxsize=10_000)
def counted_as(address: str) -> str:
    """Return the name under which *address* is counted: an IPv6 address as its network of 64 bits.

    What is no address counts as itself.
    """
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        host_bits = 128 - _SUBSCRIBER_BITS
        return f"{IPv6Address(int(parsed) >> host_bits << host_bits)}/{_SUBSCRIBER_BITS}"
    return str(parsed) if parsed is not None else address[:64]


def _parsed(text: str) -> Address | None:
    """Return the address in *text*, which may have a port; an IPv4 address inside IPv6 as such."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text[:64])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _of_list(lines: Iterable[str]) -> list[str]:
    """Return the hops of `X-Forwarded-For`, the nearest first."""
    return ",".join(lines).rsplit(",", _MAX_HOPS)[::-1][:_MAX_HOPS] if (lines := [*lines]) else []


def _of_forwarded(lines: Iterable[str]) -> list[str]:
    """Return the hops of `Forwarded`, the nearest first.

    A quotation mark that is never closed must not swallow what proxies add after it. No address
    contains a comma or a semicolon, so both divide wherever they stand.
    """
    hops = []
    for element in _of_list(lines):
        pairs = (pair.partition("=") for pair in element.split(";"))
        hops.append(
            next((value for name, _, value in pairs if name.strip().lower() == "for"), "unknown")
        )
    return hops
