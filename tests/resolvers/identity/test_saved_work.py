"""Saved work: patched, versioned, bounded, and each user's own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.accounts.errors import NameTaken, NotFound, TooLarge, VersionConflict
from db.accounts.repositories.preferences import MOST_BYTES, merged
from market.errors import BadInput
from resolvers.identity.saved_work import (
    LayoutToSave,
    PresetToSave,
    chart_layouts,
    delete_chart_layout,
    delete_indicator_preset,
    indicator_presets,
    preferences,
    save_chart_layout,
    save_indicator_preset,
    save_preferences,
)
from tests.accounts import Stage

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


# The examples of RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_is_that_of_the_rfc(target, patch, result) -> None:
    assert merged(target, patch) == result


@given(JSON, JSON)
def test_a_patch_applied_twice_is_a_patch_applied_once(target, patch) -> None:
    once = merged(target, patch)

    assert merged(once, patch) == once


async def test_preferences_grow_by_patches_and_come_back_as_they_were(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    assert (await preferences(stage.identity, principal)).content == {}
    text = "ü \u0000 🎈"

    await save_preferences(stage.identity, principal, {"z": 1, "a": {"x": 1.5, "y": text}})
    saved = await save_preferences(stage.identity, principal, {"a": {"x": None}, "b": [True]})

    assert saved.content == {"z": 1, "a": {"y": text}, "b": [True]}
    found = await preferences(stage.identity, principal)
    assert found == saved
    assert list(found.content) == ["z", "a", "b"]


async def test_patches_at_once_lose_nothing(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())

    await asyncio.gather(
        *(save_preferences(stage.identity, principal, {f"k{n}": n}) for n in range(12))
    )

    found = await preferences(stage.identity, principal)
    assert found.content == {f"k{n}": n for n in range(12)}
    assert found.version == 12


async def test_a_patch_to_another_version_is_refused(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    await save_preferences(stage.identity, principal, {"a": 1}, version=0)

    with pytest.raises(VersionConflict) as refused:
        await save_preferences(stage.identity, principal, {"a": 2}, version=0)

    assert refused.value.current == 1


async def test_preferences_that_are_too_large_or_no_json_are_refused(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    await save_preferences(stage.identity, principal, {"a": "x" * (MOST_BYTES - 20)})

    with pytest.raises(TooLarge) as refused:
        await save_preferences(stage.identity, principal, {"b": "x" * 20})
    assert refused.value.most == MOST_BYTES
    odd = ({"n": object()}, {"n": 2**64}, {"n": "\ud83d"}, {"\ud83d": 1}, {1: 1})
    deep: dict = {}
    for _ in range(5_000):
        deep = {"d": deep}
    for patch in ({"n": float("nan")}, {"n": float("inf")}, deep, *odd):
        with pytest.raises(BadInput):
            await save_preferences(stage.identity, principal, patch)


async def test_one_layout_of_an_instrument_is_its_default(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())

    async def save(name: str, instrument: str | None):
        return await save_chart_layout(
            stage.identity, principal, LayoutToSave(name, {}, instrument, is_default=True)
        )

    first = await save("first", "binance:BTC/USDT")
    await save("other", "binance:ETH/USDT")
    await save("any", None)
    stage.later(60)
    second = await save("second", "binance:BTC/USDT")

    found = {each.name: each for each in await chart_layouts(stage.identity, principal)}
    assert {name for name, each in found.items() if each.is_default} == {"second", "other", "any"}
    # Whoever still holds the first one learns that it changed, and when.
    assert found["first"].version == first.version + 1
    assert first.updated_at < found["first"].updated_at == second.updated_at


async def test_of_two_changes_to_one_version_of_a_layout_the_second_is_refused(
    stage: Stage,
) -> None:
    principal = await stage.principal(await stage.member())
    made = await save_chart_layout(stage.identity, principal, LayoutToSave("plain", {"n": 0}))
    wanted = LayoutToSave("plain", {"n": 1}, id=made.id, version=made.version)

    outcomes = await asyncio.gather(
        *(save_chart_layout(stage.identity, principal, wanted) for _ in range(3)),
        return_exceptions=True,
    )

    assert sum(isinstance(each, VersionConflict) for each in outcomes) == 2
    (found,) = await chart_layouts(stage.identity, principal)
    assert (found.content, found.version, found.created_at) == ({"n": 1}, 2, made.created_at)


async def test_a_layout_of_somebody_else_reads_as_not_there(stage: Stage) -> None:
    owner = await stage.principal(await stage.member())
    other = await stage.principal(await stage.member())
    made = await save_chart_layout(stage.identity, owner, LayoutToSave("plain", {}))
    wanted = LayoutToSave("mine", {}, id=made.id, version=1)

    with pytest.raises(NotFound):
        await save_chart_layout(stage.identity, other, wanted)
    with pytest.raises(NotFound):
        await delete_chart_layout(stage.identity, other, made.id)

    await delete_chart_layout(stage.identity, owner, made.id)
    assert await chart_layouts(stage.identity, owner) == []


async def test_a_preset_has_a_name_of_its_own_for_its_indicator(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    slow = PresetToSave("rsi", "slow", {"period": 30})
    made = await save_indicator_preset(stage.identity, principal, slow)
    fast = await save_indicator_preset(stage.identity, principal, replace(slow, name="fast"))
    await save_indicator_preset(stage.identity, principal, replace(slow, indicator="macd"))

    with pytest.raises(NameTaken):
        await save_indicator_preset(stage.identity, principal, slow)
    with pytest.raises(NameTaken):
        await save_indicator_preset(
            stage.identity, principal, replace(slow, id=fast.id, version=fast.version)
        )

    changed = await save_indicator_preset(
        stage.identity, principal, replace(slow, content={"period": 31}, id=made.id, version=1)
    )
    assert (changed.content, changed.version) == ({"period": 31}, 2)
    await delete_indicator_preset(stage.identity, principal, fast.id)
    names = [each.name for each in await indicator_presets(stage.identity, principal)]
    assert names == ["slow", "slow"]
