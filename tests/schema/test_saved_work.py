"""Preferences, chart layouts and indicator presets through GraphQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import Engine, event

from db.accounts.permissions import Role
from db.accounts.repositories.layouts import ChartLayout
from db.accounts.repositories.presets import IndicatorPreset
from db.embedded.servers import EmbeddedServers
from schema.node import global_id
from schema.saved.layouts import LAYOUT as LAYOUT_TYPE
from schema.saved.presets import PRESET as PRESET_TYPE
from tests.accounts import NOW
from tests.api import Asked, settings_over
from tests.people import House, Person, housed

pytestmark = pytest.mark.asyncio(loop_scope="session")

FAILURE = "... on Failure { code message }"
LARGE = "... on InvalidInput { field } ... on ContentTooLarge { size limit }"
PREFERENCES = "content version updatedAt"
LAYOUT = "id name instrument isDefault content version createdAt updatedAt"
PRESET = "id indicator name content version createdAt updatedAt"
MINE = f"{{ preferences {{ {PREFERENCES} }} }}"
LAYOUTS = f"{{ chartLayouts {{ {LAYOUT} }} }}"
PRESETS = f"{{ indicatorPresets {{ {PRESET} }} }}"
NODE = "query ($id: ID!) { node(id: $id) { id __typename } }"
SAVE = f"""mutation ($input: SavePreferencesInput!) {{ savePreferences(input: $input) {{
    __typename ... on PreferencesSaved {{ preferences {{ {PREFERENCES} }} }} {FAILURE} {LARGE}
    ... on PreferencesVersionConflict {{ current {{ {PREFERENCES} }} }} }} }}"""
SAVE_LAYOUT = f"""mutation ($input: SaveChartLayoutInput!) {{ saveChartLayout(input: $input) {{
    __typename ... on ChartLayoutSaved {{ chartLayout {{ {LAYOUT} }} }} {FAILURE} {LARGE}
    ... on TooMany {{ limit }}
    ... on ChartLayoutVersionConflict {{ current {{ {LAYOUT} }} }} }} }}"""
SAVE_PRESET = f"""mutation ($input: SaveIndicatorPresetInput!) {{
    saveIndicatorPreset(input: $input) {{
    __typename ... on IndicatorPresetSaved {{ indicatorPreset {{ {PRESET} }} }} {FAILURE} {LARGE}
    ... on IndicatorPresetVersionConflict {{ current {{ {PRESET} }} }} }} }}"""
DELETE_LAYOUT = f"""mutation ($id: ID!, $version: Int) {{
    deleteChartLayout(input: {{id: $id, version: $version}}) {{
    __typename ... on ChartLayoutDeleted {{ id }} {FAILURE}
    ... on ChartLayoutVersionConflict {{ current {{ {LAYOUT} }} }} }} }}"""
DELETE_PRESET = f"""mutation ($id: ID!, $version: Int) {{
    deleteIndicatorPreset(input: {{id: $id, version: $version}}) {{
    __typename ... on IndicatorPresetDeleted {{ id }} {FAILURE}
    ... on IndicatorPresetVersionConflict {{ current {{ {PRESET} }} }} }} }}"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(embedded: EmbeddedServers, database_url: str) -> AsyncIterator[House]:
    async with housed(settings_over(embedded, database_url), key_checks={}) as house:
        yield house


async def saved(person: Person, mutation: str, **input: Any) -> dict[str, Any]:
    """Return what comes of a mutation."""
    (result,) = (await person.ask(mutation, input=input)).data.values()
    return result


async def test_preferences_are_patched_as_rfc_7396_says(house: House) -> None:
    person = await house.person()
    before = (await person.ask(MINE)).data["preferences"]

    await saved(person, SAVE, patch={"theme": "dark", "chart": {"grid": True, "log": False}})
    result = await saved(person, SAVE, patch={"theme": None, "chart": {"log": True}, "zone": "UTC"})

    assert before == {"content": {}, "version": 0, "updatedAt": None}
    preferences = result["preferences"]
    assert preferences["content"] == {"chart": {"grid": True, "log": True}, "zone": "UTC"}
    assert preferences["version"] == 2
    assert (await person.ask(MINE)).data["preferences"] == preferences


async def test_a_patch_to_an_old_version_is_refused_with_the_present_one(house: House) -> None:
    person = await house.person()
    await saved(person, SAVE, patch={"a": 1}, version=0)

    late = await saved(person, SAVE, patch={"a": 2}, version=0)

    assert (late["__typename"], late["code"]) == ("PreferencesVersionConflict", "VERSION_CONFLICT")
    assert (late["current"]["content"], late["current"]["version"]) == ({"a": 1}, 1)


@pytest.mark.parametrize("patch", [[], "text", 7, True, [{}]])
async def test_a_patch_is_an_object(house: House, patch: Any) -> None:
    person = await house.person()

    result = await saved(person, SAVE, patch=patch)

    assert (result["__typename"], result["field"]) == ("InvalidInput", "patch")


async def test_preferences_have_a_bound(house: House) -> None:
    person = await house.person()
    await saved(person, SAVE, patch={"a": "x" * 30_000})

    result = await saved(person, SAVE, patch={"b": "x" * 3_000})

    assert (result["__typename"], result["limit"]) == ("ContentTooLarge", 32_768)
    assert result["size"] > result["limit"]
    assert (await person.ask(MINE)).data["preferences"]["version"] == 1


async def test_what_is_too_deep_is_refused(house: House) -> None:
    person = await house.person()
    content: Any = 1
    for _ in range(40):
        content = {"a": content}

    result = await saved(person, SAVE, patch=content)

    assert (result["__typename"], result["field"]) == ("InvalidInput", "patch")


async def test_json_may_stand_in_the_document(house: House) -> None:
    person = await house.person()

    answer = await person.ask(
        'mutation { savePreferences(input: {patch: {a: [1, 2.5, null, "x"], b: {c: true}}}) '
        "{ ... on PreferencesSaved { preferences { content } } } }"
    )

    content = answer.data["savePreferences"]["preferences"]["content"]
    assert content == {"a": [1, 2.5, None, "x"], "b": {"c": True}}


async def test_a_number_that_json_cannot_carry_is_refused(house: House) -> None:
    person = await house.person()

    answer = await person.ask(
        f"mutation {{ savePreferences(input: {{patch: {{a: {10**30}}}}}) {{ __typename }} }}"
    )

    assert answer.data["savePreferences"]["__typename"] == "InvalidInput"


async def test_one_layout_is_the_default_of_an_instrument(house: House) -> None:
    person = await house.person()
    given = {"content": {"panes": [1]}, "instrument": "binance:BTC/USDT", "isDefault": True}

    first = await saved(person, SAVE_LAYOUT, name="a", **given)
    await saved(person, SAVE_LAYOUT, name="b", **given)
    await saved(person, SAVE_LAYOUT, name="c", content={}, isDefault=True)

    layouts = (await person.ask(LAYOUTS)).data["chartLayouts"]
    assert first["chartLayout"]["isDefault"] is True
    assert [(each["name"], each["isDefault"]) for each in layouts] == [
        ("a", False),
        ("b", True),
        ("c", True),
    ]
    assert layouts[0]["content"] == {"panes": [1]}


async def test_a_layout_is_written_over_at_its_version_only(house: House) -> None:
    person = await house.person()
    layout = (await saved(person, SAVE_LAYOUT, name="a", content=1))["chartLayout"]
    over = {"id": layout["id"], "version": 1, "content": 2}

    changed = await saved(person, SAVE_LAYOUT, name="b", **over)
    late = await saved(person, SAVE_LAYOUT, name="c", **over)

    assert changed["chartLayout"]["version"] == 2
    assert changed["chartLayout"]["createdAt"] == layout["createdAt"]
    assert late["__typename"] == "ChartLayoutVersionConflict"
    assert late["current"] == changed["chartLayout"]


async def test_a_layout_is_deleted_at_the_version_that_was_named(house: House) -> None:
    person = await house.person()
    layout = (await saved(person, SAVE_LAYOUT, name="a", content=1))["chartLayout"]
    over = {"id": layout["id"], "version": 1, "content": 2}
    changed = (await saved(person, SAVE_LAYOUT, name="b", **over))["chartLayout"]

    late = (await person.ask(DELETE_LAYOUT, id=layout["id"], version=1)).data["deleteChartLayout"]
    kept = (await person.ask(LAYOUTS)).data["chartLayouts"]
    gone = (await person.ask(DELETE_LAYOUT, id=layout["id"], version=2)).data["deleteChartLayout"]

    assert (late["__typename"], late["current"]) == ("ChartLayoutVersionConflict", changed)
    assert kept == [changed]
    assert gone == {"__typename": "ChartLayoutDeleted", "id": layout["id"]}
    assert (await person.ask(LAYOUTS)).data["chartLayouts"] == []


async def test_a_preset_is_deleted_at_the_version_that_was_named(house: House) -> None:
    person = await house.person()
    named = {"indicator": "rsi", "name": "slow"}
    preset = (await saved(person, SAVE_PRESET, content=1, **named))["indicatorPreset"]
    over = {**named, "id": preset["id"], "version": 1, "content": 2}
    changed = (await saved(person, SAVE_PRESET, **over))["indicatorPreset"]

    late = (await person.ask(DELETE_PRESET, id=preset["id"], version=1)).data
    kept = (await person.ask(PRESETS)).data["indicatorPresets"]
    gone = (await person.ask(DELETE_PRESET, id=preset["id"])).data["deleteIndicatorPreset"]

    conflict = late["deleteIndicatorPreset"]
    assert conflict["__typename"] == "IndicatorPresetVersionConflict"
    assert conflict["current"] == changed
    assert kept == [changed]
    assert gone == {"__typename": "IndicatorPresetDeleted", "id": preset["id"]}


async def test_to_write_over_takes_a_version(house: House) -> None:
    person = await house.person()
    layout = (await saved(person, SAVE_LAYOUT, name="a", content=1))["chartLayout"]

    result = await saved(person, SAVE_LAYOUT, name="a", content=2, id=layout["id"])

    assert (result["__typename"], result["field"]) == ("InvalidInput", "version")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"instrument": " "}, "instrument"),
        ({"instrument": "x" * 201}, "instrument"),
    ],
)
async def test_a_layout_is_named_rightly(house: House, given: dict[str, str], field: str) -> None:
    person = await house.person()

    result = await saved(person, SAVE_LAYOUT, **({"name": "a", "content": 1} | given))

    assert (result["__typename"], result["field"]) == ("InvalidInput", field)


async def test_layouts_and_presets_have_bounds(house: House) -> None:
    person = await house.person()

    layout = await saved(person, SAVE_LAYOUT, name="a", content="x" * 131_072)
    preset = await saved(person, SAVE_PRESET, indicator="ema", name="a", content="x" * 16_384)

    assert (layout["__typename"], layout["limit"]) == ("ContentTooLarge", 131_072)
    assert (preset["__typename"], preset["limit"]) == ("ContentTooLarge", 16_384)


async def filled(house: House, person: Person, kind: str, count: int, content: Any) -> UUID:
    """Save so many layouts or presets at once, and return the id of the last."""
    assert person.user is not None
    async with house.identity.accounts.transaction() as transaction:
        for number in range(count):
            ids = {"id": uuid4(), "user_id": person.user.id, "name": str(number)}
            times = {"version": 1, "created_at": NOW, "updated_at": NOW}
            if kind == LAYOUT_TYPE:
                every = {"instrument": None, "is_default": False, **ids, **times}
                await transaction.layouts.add(ChartLayout(content=content, **every))
            else:
                every = {"indicator": "ema", **ids, **times}
                await transaction.presets.add(IndicatorPreset(content=content, **every))
    return ids["id"]


async def test_nobody_has_more_layouts_than_one_may(house: House) -> None:
    person = await house.person()
    await filled(house, person, LAYOUT_TYPE, 100, 0)

    result = await saved(person, SAVE_LAYOUT, name="one more", content=0)

    assert (result["__typename"], result["code"], result["limit"]) == ("TooMany", "TOO_MANY", 100)


async def test_a_preset_is_unique_by_its_name_and_indicator(house: House) -> None:
    person, other = await house.person(), await house.person()
    first = await saved(person, SAVE_PRESET, indicator="ema", name="fast", content={"n": 9})

    again = await saved(person, SAVE_PRESET, indicator="ema", name="fast", content={"n": 8})
    await saved(person, SAVE_PRESET, indicator="rsi", name="fast", content={"n": 14})
    anothers = await saved(other, SAVE_PRESET, indicator="ema", name="fast", content={"n": 7})

    assert first["indicatorPreset"]["content"] == {"n": 9}
    assert again["__typename"] == "NameTaken"
    assert anothers["__typename"] == "IndicatorPresetSaved"
    presets = (await person.ask(PRESETS)).data["indicatorPresets"]
    assert [each["indicator"] for each in presets] == ["ema", "rsi"]


async def test_a_preset_is_written_over_at_its_version_only(house: House) -> None:
    person = await house.person()
    given = {"indicator": "ema", "name": "fast"}
    preset = (await saved(person, SAVE_PRESET, content=1, **given))["indicatorPreset"]
    over = given | {"id": preset["id"], "version": 1}

    changed = await saved(person, SAVE_PRESET, content=2, **over)
    late = await saved(person, SAVE_PRESET, content=3, **over)

    assert late["__typename"] == "IndicatorPresetVersionConflict"
    assert late["current"] == changed["indicatorPreset"]


async def test_what_is_deleted_is_gone(house: House) -> None:
    person = await house.person()
    layout = (await saved(person, SAVE_LAYOUT, name="a", content=1))["chartLayout"]["id"]
    preset = await saved(person, SAVE_PRESET, indicator="ema", name="a", content=1)

    for mutation, gone in (
        (DELETE_LAYOUT, layout),
        (DELETE_PRESET, preset["indicatorPreset"]["id"]),
    ):
        (first,) = (await person.ask(mutation, id=gone)).data.values()
        (second,) = (await person.ask(mutation, id=gone)).data.values()
        assert first["id"] == gone
        assert (second["__typename"], second["code"]) == ("NotFound", "NOT_FOUND")

    assert (await person.ask(LAYOUTS)).data["chartLayouts"] == []
    assert (await person.ask(PRESETS)).data["indicatorPresets"] == []


@pytest.mark.parametrize("role", [Role.USER, Role.ADMIN])
async def test_anothers_work_reads_as_not_found(house: House, role: Role) -> None:
    owner, other = await house.person(), await house.person(role)
    layout = (await saved(owner, SAVE_LAYOUT, name="a", content=1))["chartLayout"]["id"]
    preset = (await saved(owner, SAVE_PRESET, indicator="ema", name="a", content=1))[
        "indicatorPreset"
    ]["id"]

    over = await saved(other, SAVE_LAYOUT, name="b", content=2, id=layout, version=1)
    deleted = (await other.ask(DELETE_PRESET, id=preset)).data["deleteIndicatorPreset"]
    crossed = (await owner.ask(DELETE_PRESET, id=layout)).data["deleteIndicatorPreset"]

    assert {each["__typename"] for each in (over, deleted, crossed)} == {"NotFound"}
    for named, kind in ((layout, "ChartLayout"), (preset, "IndicatorPreset")):
        assert (await other.ask(NODE, id=named)).data["node"] is None
        assert (await owner.ask(NODE, id=named)).data["node"] == {"id": named, "__typename": kind}


async def test_who_only_reads_the_market_saves_their_own_work(house: House) -> None:
    reader = await house.person(Role.READ_ONLY)

    result = await saved(reader, SAVE_LAYOUT, name="a", content=1)

    assert result["__typename"] == "ChartLayoutSaved"
    assert (await house.stranger.ask(LAYOUTS)).codes == ["UNAUTHENTICATED"]


@pytest.mark.parametrize(
    ("kind", "mutation", "given", "size", "most"),
    [
        (LAYOUT_TYPE, SAVE_LAYOUT, {}, 131_072, 4_194_304),
        (PRESET_TYPE, SAVE_PRESET, {"indicator": "ema"}, 16_384, 1_048_576),
    ],
)
async def test_all_that_one_saves_has_a_bound_together(
    house: House, kind: str, mutation: str, given: dict[str, str], size: int, most: int
) -> None:
    person, other = await house.person(), await house.person()
    content = "x" * (size - 2)  # and the quotation marks
    last = global_id(kind, str(await filled(house, person, kind, most // size, content)))
    more = given | {"name": "more", "content": 1}

    refused = await saved(person, mutation, **more)
    less = await saved(person, mutation, id=last, version=1, **(more | {"name": "less"}))
    again = await saved(person, mutation, **more)
    others = await saved(other, mutation, **more)

    assert (refused["__typename"], refused["code"]) == ("ContentTooLarge", "TOO_LARGE")
    assert (refused["size"], refused["limit"]) == (most + 1, most)
    assert {each["__typename"] for each in (less, again, others)} == {f"{kind}Saved"}


async def test_a_document_is_answered_under_some_names_and_not_under_hundreds(house: House) -> None:
    person = await house.person()
    layout = (await saved(person, SAVE_LAYOUT, name="a", content="x" * 131_000))["chartLayout"]

    async def ask(times: int) -> Asked:
        names = " ".join(f"a{n}: content" for n in range(times))
        return await person.ask(
            f"query ($id: ID!) {{ node(id: $id) {{ ... on ChartLayout {{ {names} }} }} }}",
            id=layout["id"],
        )

    some, hundreds = await ask(20), await ask(200)

    assert some.data["node"] == {f"a{n}": "x" * 131_000 for n in range(20)}
    assert hundreds.body["data"] == {"node": None}
    assert hundreds.codes == ["COST_EXCEEDED"]
    assert len(hundreds.body["errors"]) == 1


@contextmanager
def reads_of(table: str) -> Iterator[list[str]]:
    """Yield the statements that read *table* meanwhile."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("SELECT") and table in statement:
            found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def test_what_is_asked_for_under_many_names_is_read_once(house: House) -> None:
    person = await house.person()
    layout = (await saved(person, SAVE_LAYOUT, name="a", content={"b": [1, 2]}))["chartLayout"]
    lists = " ".join(f"a{n}: chartLayouts {{ id content }}" for n in range(7))
    nodes = " ".join(f"b{n}: node(id: $id) {{ id }}" for n in range(7))

    with reads_of("user_chart_layouts") as reads:
        answer = await person.ask(f"query ($id: ID!) {{ {lists} {nodes} }}", id=layout["id"])

    shown = {"id": layout["id"], "content": {"b": [1, 2]}}
    assert [answer.data[f"a{n}"] for n in range(7)] == [[shown]] * 7
    assert [answer.data[f"b{n}"] for n in range(7)] == [{"id": layout["id"]}] * 7
    assert len(reads) == 2
