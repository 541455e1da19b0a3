"""How long a backfill waits for a provider that fails."""

from __future__ import annotations

import pytest

from datasources.backfill.patience import Insistence, Patience
from market.errors import ProviderUnavailable


@pytest.mark.parametrize(("retry_after", "pause"), [(None, 4.0), (30.0, 30.0), (1.0, 4.0)])
def test_a_pause_is_as_long_as_the_provider_asks(retry_after: float | None, pause: float) -> None:
    assert Patience(first=1, longest=60).pause(3, retry_after) == pause


def test_pauses_grow_up_to_the_longest() -> None:
    patience = Patience(first=1, longest=60)

    pauses = [patience.pause(failures, None) for failures in (1, 2, 3, 20, 10_000)]

    assert pauses == [1, 2, 4, 60, 60]


async def test_a_call_that_goes_on_failing_is_made_so_many_times_and_no_more() -> None:
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise ProviderUnavailable("fake", "told to fail", retry_after=0)

    with pytest.raises(ProviderUnavailable):
        await Insistence(Patience(attempts=4, first=0.001)).call(fail)

    assert calls == 4


@pytest.mark.parametrize(("failing", "retry_after"), [(True, 0.0), (False, 61.0)])
async def test_nothing_is_waited_for_in_place_that_lasts(failing: bool, retry_after: float) -> None:
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise ProviderUnavailable("fake", "told to fail", retry_after=retry_after)

    with pytest.raises(ProviderUnavailable):
        await Insistence(Patience(first=0.001, longest=60), failing=failing).call(fail)

    assert calls == 1


async def test_a_provider_that_answered_again_is_given_all_attempts() -> None:
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise ProviderUnavailable("fake", "told to fail", retry_after=0)

    insistence = Insistence(Patience(attempts=4, first=0.001), failing=True)
    insistence.answered()
    with pytest.raises(ProviderUnavailable):
        await insistence.call(fail)

    assert calls == 4
