"""Random numbers that are looked up, not drawn: the same key and position always give the same.

Everything here uses only operations whose result IEEE 754 and integer arithmetic fix to the last
bit, so that every machine and every length of array agrees; numpy's `exp` is not such a one.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from market.bars import Floats, Ints

Words = NDArray[np.uint64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LOG_2 = 0.6931471805599453
# 2**f = sum of (f ln 2)**n / n! for 0 <= f < 1; 16 terms reach the last bit.
_TERMS = 16


def key_of(*parts: object) -> int:
    """Return a key of 64 bits that belongs to *parts*."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def words(key: int, positions: Ints) -> Words:
    """Return 64 random bits for each position, of the stream *key* (splitmix64, addressed)."""
    word = positions.astype(np.uint64)
    word *= np.uint64(_GOLDEN)
    word += np.uint64(key & _MASK)
    word ^= word >> np.uint64(30)
    word *= np.uint64(_FIRST)
    word ^= word >> np.uint64(27)
    word *= np.uint64(_SECOND)
    word ^= word >> np.uint64(31)
    return word


def bits(word: Words, first: int, count: int) -> Floats:
    """Return *count* bits of each word, from bit *first*, as a number `0 <= x < 1`."""
    part = (word >> np.uint64(first)) & np.uint64((1 << count) - 1)
    return part.astype(np.float64) * 0.5**count


def normal(word: Words) -> Floats:
    """Return about normal numbers of deviation 1: the sum of four uniform ones of 16 bits."""
    low = np.uint64(0xFFFF)
    total = word & low
    for shift in (16, 32, 48):
        total += (word >> np.uint64(shift)) & low
    return (total.astype(np.float64) * 2.0**-16 - 2.0) * 1.7320508075688772


def exp2(exponent: Floats) -> Floats:
    """Return 2 to the power of each exponent, the same to the last bit on every machine."""
    whole = np.floor(exponent)
    scaled = (exponent - whole) * _LOG_2
    value = np.ones_like(scaled)
    for n in range(_TERMS, 0, -1):
        value = 1.0 + value * scaled / n
    return np.ldexp(value, whole.astype(np.int64))
