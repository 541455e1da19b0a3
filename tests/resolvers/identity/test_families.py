"""Families of refresh tokens, held against the rule as one would tell it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from resolvers.identity.failures import Unauthenticated
from resolvers.identity.signing_in import refresh
from resolvers.identity.tokens import RefreshToken
from tests.accounts import ORIGIN, Stage

TWO_TABS = 10


@dataclass
class Told:
    """All tokens a family ever gave, in order. The last one counts; how old it is, in seconds."""

    given: list[str] = field(default_factory=list)
    age: int = 0
    ended: bool = False

    def present(self, index: int) -> str | None:
        """Return what presenting a token must give: `next`, the same again, or None."""
        if self.ended:
            return None
        if index == len(self.given) - 1:
            is_young = len(self.given) > 1 and self.age <= TWO_TABS
            return self.given[-1] if is_young else "next"
        if index == len(self.given) - 2 and self.age <= TWO_TABS:
            return self.given[-1]
        self.ended = True
        return None


STEPS = st.lists(
    st.tuples(st.sampled_from([0, 1, 5, 10, 11]), st.sampled_from([-1, -1, -1, -2, -2, -3, 0])),
    max_size=12,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_a_family_gives_ends_and_repeats_as_the_rule_says(stage: Stage, steps) -> None:
    told = Told([(await stage.login(await stage.member())).refresh.get_secret_value()])
    for seconds, back in steps:
        stage.later(seconds)
        told.age += seconds
        index = max(0, len(told.given) + back) if back else 0
        expected = told.present(index)

        try:
            answer = await refresh(stage.identity, SecretStr(told.given[index]), origin=ORIGIN)
            got = answer.refresh.get_secret_value()
        except Unauthenticated:
            got = None

        if expected == "next":
            assert got not in (None, *told.given)
            told.given.append(got)
            told.age = 0
        else:
            assert got == expected


MOMENTS = st.lists(
    st.tuples(st.sampled_from([0, 0.3, 3, 9.5, 10, 10.5, 600]), st.integers(0, 3)), max_size=15
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moments=MOMENTS)
async def test_whoever_shows_what_was_the_newest_token_ten_seconds_ago_goes_on(
    stage: Stage, moments
) -> None:
    first = (await stage.login(await stage.member())).refresh
    newest = [(first, stage.clock.at)]
    for seconds, choice in moments:
        stage.later(seconds)
        # What followed a token ended its time as the newest: those still shown by a late tab.
        ends = [since for _, since in newest[1:]] + [stage.clock.at]
        late = [
            token
            for (token, _), end in zip(newest, ends, strict=True)
            if stage.clock.at - end <= TWO_TABS * 1000
        ]

        got = await refresh(stage.identity, late[choice % len(late)], origin=ORIGIN)

        if got.refresh != newest[-1][0]:
            newest.append((got.refresh, stage.clock.at))
        assert got.refresh not in [token for token, _ in newest[:-1]]


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_successor_is_of_the_same_family_and_needs_both_token_and_salt(one, other) -> None:
    token = RefreshToken.new()

    following = token.next(one)

    assert following.lookup == token.lookup
    assert RefreshToken.read(following.text.get_secret_value()) == following
    assert (following == token.next(other)) == (one == other)
    assert following != RefreshToken.new().next(one)
