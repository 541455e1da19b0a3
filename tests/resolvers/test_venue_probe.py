"""Credentials are tried within bounds, whoever asks and however a venue behaves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from db.accounts.repositories.credentials import CredentialSecrets
from market.errors import ProviderUnavailable, UnknownName
from plugins.credentials import KeyPermission, KeysRefused, VenueKeys
from resolvers.identity.failures import CredentialRefused
from resolvers.venue_probe import VenueProbe

SECRETS = CredentialSecrets(SecretStr("a key"), SecretStr("a secret"), SecretStr("a passphrase"))


@dataclass(slots=True)
class Venue:
    """A `ChecksCredentials` that fails and hangs on command, and remembers what it was shown."""

    failure: Exception | None = None
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[VenueKeys] = field(default_factory=list)
    inside: int = 0
    most: int = 0

    async def check(self, keys: VenueKeys) -> tuple[KeyPermission, ...]:
        self.asked.append(keys)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.answering.wait()
        finally:
            self.inside -= 1
        if self.failure is not None:
            raise self.failure
        return (KeyPermission.READ,)


@pytest.fixture
def venue() -> Venue:
    venue = Venue()
    venue.answering.set()
    return venue


async def test_a_venue_is_shown_the_keys_and_which_world_they_are_for(venue: Venue) -> None:
    probe = VenueProbe({"venue": venue})

    permissions = await probe.probe("venue", SECRETS, testnet=True)

    assert permissions == (KeyPermission.READ,)
    assert venue.asked == [VenueKeys(SECRETS.key, SECRETS.secret, SECRETS.aux, testnet=True)]


async def test_a_refusal_keeps_its_reason(venue: Venue) -> None:
    venue.failure = KeysRefused("venue", "it has no testnet")

    with pytest.raises(CredentialRefused) as raised:
        await VenueProbe({"venue": venue}).probe("venue", SECRETS, testnet=False)

    assert (raised.value.service, raised.value.reason) == ("venue", "it has no testnet")


async def test_a_venue_that_was_taken_out_of_the_settings_is_unknown(venue: Venue) -> None:
    probe = VenueProbe({"venue": venue})

    with pytest.raises(UnknownName):
        await probe.probe("elsewhere", SECRETS, testnet=False)

    assert list(probe.services) == ["venue"]


async def test_a_venue_that_hangs_is_left() -> None:
    venue = Venue()

    with pytest.raises(ProviderUnavailable, match="in time"):
        await VenueProbe({"venue": venue}, seconds=0.05).probe("venue", SECRETS, testnet=False)

    assert venue.inside == 0


async def test_few_are_tried_at_once_and_the_others_wait_for_their_turn() -> None:
    venue = Venue()
    probe = VenueProbe({"venue": venue}, at_once=2)
    tries = [asyncio.create_task(probe.probe("venue", SECRETS, testnet=False)) for _ in range(10)]
    while venue.inside < 2:
        await asyncio.sleep(0)

    venue.answering.set()
    await asyncio.gather(*tries)

    assert (len(venue.asked), venue.most) == (10, 2)


async def test_who_gets_no_turn_is_told_and_leaves_no_trace() -> None:
    venue = Venue()
    probe = VenueProbe({"venue": venue}, turn_seconds=0.01, at_once=1)
    first = asyncio.create_task(probe.probe("venue", SECRETS, testnet=False))
    while venue.inside < 1:
        await asyncio.sleep(0)

    with pytest.raises(ProviderUnavailable, match="others"):
        await probe.probe("venue", SECRETS, testnet=False)

    venue.answering.set()
    await first
    await probe.probe("venue", SECRETS, testnet=False)
    assert len(venue.asked) == 2


async def test_a_venue_that_wants_fewer_calls_is_left_alone_by_all(venue: Venue) -> None:
    venue.failure = ProviderUnavailable("venue", "rate limited", retry_after=60)
    probe = VenueProbe({"venue": venue, "other": Venue(answering=venue.answering)})

    with pytest.raises(ProviderUnavailable):
        await probe.probe("venue", SECRETS, testnet=False)
    with pytest.raises(ProviderUnavailable) as raised:
        await probe.probe("venue", SECRETS, testnet=False)

    assert len(venue.asked) == 1
    assert raised.value.retry_after == pytest.approx(60, abs=5)
    assert await probe.probe("other", SECRETS, testnet=False) == (KeyPermission.READ,)
