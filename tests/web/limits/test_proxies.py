"""Whose address a connection has: never one that the client made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.limits.proxies import Proxies, counted_as, network_of

PROXY, INNER, CLIENT, FORGED = "10.0.0.1", "10.0.0.2", "203.0.113.7", "198.51.100.66"
TRUSTED = Proxies(["10.0.0.0/8", "fd00::/8"])


def origin(
    proxies: Proxies, peer: str, xff: list[str] | None = None, fwd: list[str] | None = None
) -> str:
    return proxies.origin(peer, forwarded=fwd or [], x_forwarded_for=xff or [])


def test_who_is_no_proxy_is_not_believed() -> None:
    assert origin(TRUSTED, CLIENT, [FORGED], [f"for={FORGED}"]) == CLIENT
    assert origin(Proxies(), PROXY, [FORGED]) == PROXY


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ([CLIENT], CLIENT),
        ([f"{FORGED}, {CLIENT}"], CLIENT),
        ([FORGED, CLIENT], CLIENT),
        ([f"{FORGED}, {CLIENT}, {INNER}"], CLIENT),
        ([f"{FORGED},{CLIENT} , {INNER},{INNER}"], CLIENT),
        ([f"{CLIENT}:4711"], CLIENT),
        (["[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2::/64"),
        ([f"::ffff:{CLIENT}"], CLIENT),
        (["unknown"], PROXY),
        ([f"{FORGED}, _hidden"], PROXY),
        ([f"{FORGED}, unknown, {INNER}"], INNER),
        ([""], PROXY),
        ([INNER], INNER),
    ],
)
def test_the_rightmost_hop_that_is_no_proxy_of_ours_is_the_caller(
    header: list[str], expected: str
) -> None:
    assert origin(TRUSTED, PROXY, header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ([f"for={CLIENT}"], CLIENT),
        ([f"for={FORGED}, for={CLIENT};proto=https;by={PROXY}"], CLIENT),
        ([f"For={FORGED}", f'proto=http;FOR="{CLIENT}:4711"'], CLIENT),
        (['for="[2001:db8:1:2:3::4]:4711"'], "2001:db8:1:2::/64"),
        ([f'for=", for={CLIENT}'], CLIENT),
        ([f'for="{FORGED}, for={CLIENT}'], CLIENT),
        (["for=unknown"], PROXY),
        (["proto=https"], PROXY),
    ],
)
def test_forwarded_is_read_as_well(header: list[str], expected: str) -> None:
    assert origin(TRUSTED, PROXY, fwd=header) == expected


def test_where_two_headers_disagree_neither_is_believed() -> None:
    assert origin(TRUSTED, PROXY, [CLIENT], [f"for={CLIENT}"]) == CLIENT
    assert origin(TRUSTED, PROXY, [CLIENT], [f"for={FORGED}"]) == PROXY


@given(st.lists(st.text(st.characters(codec="latin-1"), max_size=30), max_size=5))
def test_nothing_that_a_client_writes_changes_as_whom_it_counts(written: list[str]) -> None:
    header = [*written, CLIENT]
    forwarded = [*written, f"for={CLIENT}"]

    assert origin(TRUSTED, PROXY, header) == CLIENT
    assert origin(TRUSTED, PROXY, [", ".join(header)]) == CLIENT
    assert origin(TRUSTED, PROXY, fwd=forwarded) == CLIENT
    assert origin(TRUSTED, PROXY, fwd=[", ".join(forwarded)]) == CLIENT


def test_a_long_way_of_forged_hops_is_not_walked_to_its_end() -> None:
    assert origin(TRUSTED, PROXY, [", ".join([FORGED] + [INNER] * 50_000)]) == INNER


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_an_ipv6_address_counts_as_its_network(address: str, expected: str) -> None:
    assert counted_as(address) == expected


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "proxy.example", "10.0.0.0/33", ""])
def test_what_trusts_everybody_or_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        network_of(text)
