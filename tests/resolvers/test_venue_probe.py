"""Credentials are tried within bounds, whoever asks and however a venue behaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from db.accounts.repositories.credentials import CredentialSecrets
from market.clock import FixedClock
from market.errors import ProviderUnavailable
from plugins.credentials import KeyPermission, KeysRefused, VenueKeys
from resolvers.identity.failures import CredentialRefused
from resolvers.venue_probe import (
    A_MINUTE,
    FIRST_PAUSE,
    FREE_REFUSALS,
    LONGEST_PAUSE,
    VenueProbe,
)

SECRETS = CredentialSecrets(SecretStr("a key"), SecretStr("a secret"), SecretStr("a passphrase"))
ADA, BOB = uuid4(), uuid4()
REFUSED = KeysRefused("venue", "it does not know the key")


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


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(1_760_000_000_000)


async def tried(
    probe: VenueProbe, user_id: UUID = ADA, *, service: str = "venue", testnet: bool = False
) -> Sequence[str]:
    return await probe.probe(service, SECRETS, testnet=testnet, user_id=user_id)


async def refused(probe: VenueProbe, venue: Venue, user_id: UUID = ADA) -> None:
    """Have the venue refuse the keys of a user."""
    venue.failure = REFUSED
    with pytest.raises(CredentialRefused):
        await tried(probe, user_id)
    venue.failure = None


async def until_asked(venue: Venue, times: int) -> None:
    while len(venue.asked) < times:
        await asyncio.sleep(0)


async def test_a_venue_is_shown_the_keys_and_which_world_they_are_for(
    venue: Venue, clock: FixedClock
) -> None:
    permissions = await tried(VenueProbe({"venue": venue}, clock=clock), testnet=True)

    assert permissions == (KeyPermission.READ,)
    assert venue.asked == [VenueKeys(SECRETS.key, SECRETS.secret, SECRETS.aux, testnet=True)]


async def test_a_refusal_keeps_its_reason(venue: Venue, clock: FixedClock) -> None:
    venue.failure = KeysRefused("venue", "it has no testnet")

    with pytest.raises(CredentialRefused) as raised:
        await tried(VenueProbe({"venue": venue}, clock=clock))

    assert (raised.value.service, raised.value.reason) == ("venue", "it has no testnet")


async def test_a_venue_that_was_taken_out_of_the_settings_is_not_asked(
    venue: Venue, clock: FixedClock
) -> None:
    probe = VenueProbe({"venue": venue}, clock=clock)

    with pytest.raises(ProviderUnavailable, match="any more"):
        await tried(probe, service="elsewhere")

    assert list(probe.services) == ["venue"]


async def test_a_venue_that_hangs_is_left(clock: FixedClock) -> None:
    venue = Venue()

    with pytest.raises(ProviderUnavailable, match="in time"):
        await tried(VenueProbe({"venue": venue}, clock=clock, seconds=0.05))

    assert venue.inside == 0


async def test_few_are_tried_at_once_and_the_others_wait_for_their_turn(clock: FixedClock) -> None:
    venue = Venue()
    probe = VenueProbe({"venue": venue}, clock=clock, at_once=2)
    tries = [asyncio.create_task(tried(probe, uuid4())) for _ in range(10)]
    await until_asked(venue, 2)

    venue.answering.set()
    await asyncio.gather(*tries)

    assert (len(venue.asked), venue.most) == (10, 2)


async def test_one_user_has_one_try_under_way_and_leaves_room_for_others(
    clock: FixedClock,
) -> None:
    venue = Venue()
    probe = VenueProbe({"venue": venue}, clock=clock, at_once=2)
    tries = [asyncio.create_task(tried(probe, ADA)) for _ in range(5)]
    await until_asked(venue, 1)

    others = asyncio.create_task(tried(probe, BOB))
    await until_asked(venue, 2)
    inside = venue.inside
    venue.answering.set()
    await asyncio.gather(*tries, others)

    assert inside == 2
    assert len(venue.asked) == 6


async def test_who_gets_no_turn_is_told_and_leaves_no_trace(clock: FixedClock) -> None:
    venue = Venue()
    probe = VenueProbe({"venue": venue}, clock=clock, turn_seconds=0.01, at_once=1)
    first = asyncio.create_task(tried(probe))
    await until_asked(venue, 1)

    for user in (ADA, BOB):
        with pytest.raises(ProviderUnavailable, match="other tries"):
            await tried(probe, user)

    venue.answering.set()
    await first
    await tried(probe, BOB)
    assert len(venue.asked) == 2


async def test_a_venue_that_wants_fewer_calls_is_left_alone_by_all(
    venue: Venue, clock: FixedClock
) -> None:
    venue.failure = ProviderUnavailable("venue", "rate limited", retry_after=60)
    probe = VenueProbe({"venue": venue, "other": Venue(answering=venue.answering)}, clock=clock)

    for user in (ADA, BOB):
        with pytest.raises(ProviderUnavailable) as raised:
            await tried(probe, user)

    assert len(venue.asked) == 1
    assert raised.value.retry_after == 60
    assert await tried(probe, service="other") == (KeyPermission.READ,)
    clock.at += 60_000
    venue.failure = None
    await tried(probe)


async def test_a_venue_is_asked_so_often_a_minute_whoever_asks(
    venue: Venue, clock: FixedClock
) -> None:
    probe = VenueProbe({"venue": venue}, clock=clock)
    for _ in range(A_MINUTE):
        await tried(probe, uuid4())

    with pytest.raises(ProviderUnavailable) as raised:
        await tried(probe, uuid4())

    assert len(venue.asked) == A_MINUTE
    assert raised.value.retry_after == 60
    clock.at += 60_000
    await tried(probe, uuid4())


async def test_who_was_refused_again_and_again_waits_and_nobody_else_does(
    venue: Venue, clock: FixedClock
) -> None:
    probe = VenueProbe({"venue": venue}, clock=clock)
    for _ in range(FREE_REFUSALS):
        await refused(probe, venue)

    with pytest.raises(ProviderUnavailable, match="refused your keys") as raised:
        await tried(probe)

    assert raised.value.retry_after == FIRST_PAUSE
    assert len(venue.asked) == FREE_REFUSALS
    await tried(probe, BOB)
    clock.at += int(FIRST_PAUSE * 1000)
    await tried(probe)


async def test_keys_that_were_taken_make_up_for_those_that_were_refused(
    venue: Venue, clock: FixedClock
) -> None:
    probe = VenueProbe({"venue": venue}, clock=clock)
    for _ in range(FREE_REFUSALS - 1):
        await refused(probe, venue)
    await tried(probe)

    await refused(probe, venue)

    await tried(probe)


@settings(deadline=None, max_examples=30)
@given(pauses=st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_keys_that_are_always_wrong_are_shown_ever_less_often(pauses: list[int]) -> None:
    async def guessed() -> list[int]:
        venue, clock = Venue(failure=REFUSED), FixedClock(0)
        venue.answering.set()
        probe = VenueProbe({"venue": venue}, clock=clock)
        shown: list[int] = []
        for pause in pauses:
            clock.at += pause * 1000
            try:
                await tried(probe)
            except CredentialRefused:
                shown.append(clock.at)
            except ProviderUnavailable as waiting:
                assert waiting.retry_after is not None
                assert 0 < waiting.retry_after <= LONGEST_PAUSE
        return shown

    shown = asyncio.run(guessed())

    for number in range(FREE_REFUSALS, len(shown)):
        least = min(FIRST_PAUSE * 2 ** (number - FREE_REFUSALS), LONGEST_PAUSE)
        assert shown[number] - shown[number - 1] >= least * 1000
