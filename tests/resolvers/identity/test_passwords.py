"""Passwords: hashed off the event loop, few at a time, no more waiting than is bearable."""

from __future__ import annotations

import asyncio
import threading

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from resolvers.identity.failures import TooBusy
from resolvers.identity.passwords import Passwords
from tests.accounts import CHEAP, PASSWORD


class HeldHasher(PasswordHasher):
    """Hashes when it is let, and counts how many hashes run at once."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.let = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def hash(self, password, **_):
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.let.wait(10)
        with self._lock:
            self.running -= 1
        return super().hash(password)


async def test_so_many_are_hashed_at_once_and_the_loop_goes_on(closing) -> None:
    hasher = HeldHasher()
    passwords = closing(Passwords(at_once=2, hasher=hasher))

    hashing = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(6)]
    while hasher.running < 2:
        await asyncio.sleep(0.001)
    hasher.let.set()
    hashes = await asyncio.gather(*hashing)

    assert hasher.most == 2
    assert len(set(hashes)) == 6


async def test_of_too_many_the_last_are_refused_and_told_when_to_try_again(closing) -> None:
    hasher = HeldHasher()
    passwords = closing(Passwords(at_once=1, hasher=hasher))
    waiting = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(100)]
    await asyncio.sleep(0)

    with pytest.raises(TooBusy) as refused:
        await passwords.hash(PASSWORD)

    assert refused.value.retry_after > 0
    hasher.let.set()
    await asyncio.gather(*waiting)
    await passwords.hash(PASSWORD)


async def test_who_leaves_makes_room(closing) -> None:
    hasher = HeldHasher()
    passwords = closing(Passwords(at_once=1, hasher=hasher))
    waiting = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(100)]
    await asyncio.sleep(0)

    for task in waiting[1:]:
        task.cancel()
    await asyncio.gather(*waiting[1:], return_exceptions=True)

    hasher.let.set()
    await passwords.hash(PASSWORD)


@pytest.mark.parametrize("stored", ["", "$argon2id$none", "plain", "$2b$12$" + "x" * 53])
async def test_a_hash_that_cannot_be_read_lets_nobody_in(closing, stored: str) -> None:
    passwords = closing(Passwords(hasher=CHEAP))

    assert not await passwords.verify(stored, PASSWORD)


async def test_a_password_is_its_own_and_no_other(closing) -> None:
    passwords = closing(Passwords(hasher=CHEAP))
    stored = await passwords.hash(PASSWORD)

    assert await passwords.verify(stored, PASSWORD)
    assert not await passwords.verify(stored, SecretStr(PASSWORD.get_secret_value().upper()))
    assert stored.startswith("$argon2id$")


@pytest.fixture
def closing():
    opened: list[Passwords] = []

    def keep(passwords: Passwords) -> Passwords:
        opened.append(passwords)
        return passwords

    yield keep
    for passwords in opened:
        passwords.close()
