"""Pushed bars are final once, those in doubt only by the word of history."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from datasources.live.growing import GrowingBars
from market.bars import CLOSED, Bars
from market.window import MINUTE, Window
from tests.fakes import Row, row, to_bars


def pushed(minute: int, elapsed: int = MINUTE, *, flags: int = 0, version: int = 0) -> Bars:
    made = row(minute * MINUTE, version=version).so_far(elapsed)
    return to_bars({minute * MINUTE: made}, minute * MINUTE + elapsed, flags=flags)


@dataclass(frozen=True)
class Push:
    """A word of the stream on one minute."""

    minute: int
    elapsed: int
    closed: bool

    @property
    def bars(self) -> Bars:
        return pushed(self.minute, self.elapsed, flags=CLOSED if self.closed else 0)


@st.composite
def streams(draw: st.DrawFn) -> list[Push]:
    """What a stream pushes: minutes ascend and grow, some are marked closed, some come late."""
    pushes: list[Push] = []
    for minute in range(draw(st.integers(1, 6))):
        if draw(st.integers(0, 5)) == 0:
            continue
        grown = sorted(draw(st.lists(st.integers(1, MINUTE - 1), max_size=4)))
        pushes += [Push(minute, elapsed, closed=False) for elapsed in grown]
        if draw(st.booleans()):
            pushes.append(Push(minute, MINUTE, closed=draw(st.booleans())))
        if minute and draw(st.integers(0, 4)) == 0:
            pushes.append(
                Push(draw(st.integers(0, minute - 1)), MINUTE, closed=draw(st.booleans()))
            )
    return pushes


@given(stream=streams())
def test_the_last_word_on_each_bar_becomes_final_and_each_word_once(stream: list[Push]) -> None:
    growing = GrowingBars()
    final: list[tuple[int, float]] = []
    words: dict[int, float] = {}
    for push in stream:
        growing.push(push.bars)
        words[push.minute * MINUTE] = float(push.bars.volume[0])
        bars, doubtful = growing.take_final()
        assert doubtful is None
        final += zip(bars.time.tolist(), bars.volume.tolist(), strict=True)
        again, _ = growing.take_final()
        assert not len(again)
    growing.ended(100 * MINUTE)
    bars, _ = growing.take_final()
    final += zip(bars.time.tolist(), bars.volume.tolist(), strict=True)

    assert dict(final) == words
    # What comes for a bar after it was final is a correction; each is told once.
    assert len(final) <= len(words) + sum(
        1
        for n, push in enumerate(stream)
        if any(p.minute > push.minute or (p.minute == push.minute and p.closed) for p in stream[:n])
    )


@given(stream=streams(), since=st.integers(0, 5), length=st.integers(1, 3))
def test_bars_in_doubt_are_never_final_by_the_word_of_the_stream(
    stream: list[Push], since: int, length: int
) -> None:
    growing = GrowingBars()
    growing.doubted = Window(since * MINUTE, (since + length) * MINUTE)
    final: list[Bars] = []
    doubts: set[int] = set()
    for push in stream:
        growing.push(push.bars)
        bars, doubtful = growing.take_final()
        final.append(bars)
        doubts |= {doubtful} if doubtful is not None else set()
    growing.ended(100 * MINUTE)
    bars, doubtful = growing.take_final()
    final.append(bars)
    doubts |= {doubtful} if doubtful is not None else set()

    for time in {int(time) for bars in final for time in bars.time}:
        assert not growing.doubted.since <= time < growing.doubted.until
        marked = any(push.closed and push.minute * MINUTE == time for push in stream)
        assert time >= growing.doubted.until or marked
    in_doubt = {push.minute for push in stream if since <= push.minute < since + length}
    assert bool(in_doubt) <= bool(doubts)


@given(stream=streams())
def test_the_running_bar_never_goes_back(stream: list[Push]) -> None:
    growing = GrowingBars()
    newest = -1
    for push in stream:
        growing.push(push.bars)
        growing.take_final()
        running = growing.running()
        if len(running):
            time = int(running.time[0])
            assert time >= max(newest, growing.final_before)
            newest = time


@given(
    stream=streams(),
    through=st.integers(0, 6),
    history=st.sets(st.integers(0, 6)),
    since=st.integers(0, 5),
)
def test_history_has_the_last_word_on_what_it_has(
    stream: list[Push], through: int, history: set[int], since: int
) -> None:
    growing = GrowingBars()
    growing.doubted = Window(since * MINUTE, (since + 1) * MINUTE)
    for push in stream:
        growing.push(push.bars)
    growing.take_final()
    past = Bars.concat([pushed(minute, version=1) for minute in sorted(history)])

    growing.recall(past, through * MINUTE)

    final, _ = growing.take_final()
    assert growing.final_before >= through * MINUTE
    for time in final.time.tolist():
        assert time < through * MINUTE
        assert time // MINUTE not in history
        assert time >= growing.doubted.until
    running = growing.running()
    assert not len(running) or int(running.time[0]) >= growing.final_before


def test_of_a_running_bar_in_doubt_the_parts_are_joined() -> None:
    growing = GrowingBars()
    growing.doubted = Window(0, MINUTE)
    whole = Row(10.0, 15.0, 5.0, 12.0, 100.0, 11.0, 50)
    growing.recall(to_bars({0: whole}, 30_000), 0)
    late = replace(whole, open=13.0, high=16.0, low=13.0, close=14.0, volume=3.0)

    growing.push(to_bars({0: late}, 31_000))

    running = growing.running()
    assert (running.open[0], running.high[0], running.low[0]) == (10.0, 16.0, 5.0)
    assert (running.close[0], running.volume[0]) == (14.0, 100.0)


def test_a_stream_that_pushes_too_many_bars_is_not_kept_whole() -> None:
    growing = GrowingBars()
    for minute in range(2_000, 0, -1):
        growing.push(pushed(minute))

    growing.ended(3_000 * MINUTE)

    assert len(growing.take_final()[0]) <= 2_000


def test_a_bar_in_doubt_that_closed_runs_no_more() -> None:
    growing = GrowingBars()
    growing.doubted = Window(0, MINUTE)
    growing.recall(to_bars({0: Row(10.0, 15.0, 5.0, 12.0, 100.0, 11.0, 50)}, 30_000), 0)
    ended = to_bars({0: Row(10.0, 16.0, 5.0, 16.0, 120.0, 11.0, 60)}, 60_000)

    growing.push(ended.with_columns(flags=ended.flags | CLOSED))

    assert not len(growing.running())
