"""The registry lists what works and why the rest does not, and closes all it opened."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint

import pytest

from market.clock import Clock, FixedClock
from market.errors import BargraphError, UnknownName
from market.instrument import Instrument
from plugins.base import Description, Provider
from plugins.registry import (
    Factory,
    ProviderContext,
    ProviderDisabled,
    Registry,
    open_registry,
)

CONTEXT = ProviderContext(clock=FixedClock(1_700_000_000_000))


class Quiet:
    """The smallest provider; remembers that it was closed."""

    def __init__(self, name: str, *, clock: Clock = CONTEXT.clock, on_close: str = "") -> None:
        self.description = Description(name, name.title(), ("crypto",), "nobody")
        self.clock = clock
        self.closed = 0
        self._on_close = on_close

    async def symbols(self) -> Sequence[Instrument]:
        return ()

    async def aclose(self) -> None:
        self.closed += 1
        if self._on_close:
            raise RuntimeError(self._on_close)


def entry_point(name: str, attribute: str, *, module: str = __name__) -> EntryPoint:
    return EntryPoint(name=name, value=f"{module}:{attribute}", group="bargraph.providers")


def installed_one(context: ProviderContext) -> Provider:
    return Quiet("outside", clock=context.clock)


def installed_that_raises(context: ProviderContext) -> Provider:
    raise RuntimeError("no key given")


def installed_of_wrong_shape(context: ProviderContext) -> object:
    return {"not": "a provider"}


def reasons(registry: Registry) -> dict[str, str | None]:
    return {entry.name: entry.disabled for entry in registry.entries()}


async def test_built_in_providers_come_first_and_in_the_order_given() -> None:
    builtins: dict[str, Factory] = {
        "zebra": lambda _: Quiet("zebra"),
        "ant": lambda _: Quiet("ant"),
    }

    async with open_registry(
        builtins, context=CONTEXT, installed=[entry_point("outside", "installed_one")]
    ) as registry:
        names = [entry.name for entry in registry.entries()]

    assert names == ["zebra", "ant", "outside"]


async def test_a_factory_may_be_asynchronous() -> None:
    async def slow(context: ProviderContext) -> Provider:
        return Quiet("slow")

    async with open_registry({"slow": slow}, context=CONTEXT, installed=()) as registry:
        assert registry.get("slow").description.name == "slow"


async def test_an_installed_provider_gets_the_clock_of_the_wiring() -> None:
    async with open_registry(
        {}, context=CONTEXT, installed=[entry_point("outside", "installed_one")]
    ) as registry:
        assert registry.get("outside").clock is CONTEXT.clock


async def test_a_provider_that_cannot_load_is_listed_with_its_reason_and_the_rest_go_on() -> None:
    def refuses(context: ProviderContext) -> Provider:
        raise BargraphError("there is no such folder")

    points = [
        entry_point("broken", "installed_that_raises"),
        entry_point("gone", "anything", module="no_such_module_anywhere"),
        entry_point("odd", "installed_of_wrong_shape"),
        entry_point("outside", "installed_one"),
        entry_point("absent", "no_such_factory"),
    ]

    async with open_registry({"folder": refuses}, context=CONTEXT, installed=points) as registry:
        said = reasons(registry)

    assert said["folder"] == "there is no such folder"
    assert said["broken"] == "RuntimeError: no key given"
    assert said["gone"] == "ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    assert said["odd"] == "its factory made a dict without a description"
    assert (said["absent"] or "").startswith("AttributeError")
    assert said["outside"] is None


async def test_a_name_taken_twice_belongs_to_the_first() -> None:
    first = Quiet("outside")

    async with open_registry(
        {"outside": lambda _: first},
        context=CONTEXT,
        installed=[entry_point("outside", "installed_one")],
    ) as registry:
        found = registry.get("outside")
        said = [(entry.name, entry.disabled) for entry in registry.entries()]

    assert found is first
    assert said == [("outside", None), ("outside", "another provider has this name already")]


async def test_a_provider_under_another_name_than_its_own_is_refused_and_closed() -> None:
    liar = Quiet("kraken")

    async with open_registry(
        {"binance": lambda _: liar}, context=CONTEXT, installed=()
    ) as registry:
        assert reasons(registry) == {"binance": "it calls itself 'kraken'"}
        assert liar.closed == 1


@pytest.mark.parametrize("name", ["", "Binance", "a:b", "a" * 41, "_a"])
async def test_a_name_that_cannot_be_part_of_a_key_is_refused(name: str) -> None:
    async with open_registry(
        {name: lambda _: Quiet(name)}, context=CONTEXT, installed=()
    ) as registry:
        assert "must match" in (registry.entries()[0].disabled or "")


async def test_a_provider_that_settings_switch_off_is_never_built() -> None:
    def never(context: ProviderContext) -> Provider:
        pytest.fail("was built")

    async with open_registry(
        {"sim": never},
        context=CONTEXT,
        disabled={"sim": "switched off by PROVIDERS_OFF"},
        installed=(),
    ) as registry:
        with pytest.raises(ProviderDisabled) as refused:
            registry.get("sim")

    assert refused.value.code == "PROVIDER_DISABLED"
    assert refused.value.reason == "switched off by PROVIDERS_OFF"


async def test_an_unknown_name_comes_with_the_nearest_ones() -> None:
    builtins: dict[str, Factory] = {
        name: (lambda _, name=name: Quiet(name))  # type: ignore[misc]  # a default argument
        for name in ("binance", "kraken", "sim", "replay")
    }

    async with open_registry(builtins, context=CONTEXT, installed=()) as registry:
        with pytest.raises(UnknownName) as refused:
            registry.get("binanse")

    assert refused.value.suggestions[0] == "binance"


async def test_one_that_fails_to_close_does_not_keep_the_others_open() -> None:
    bad, good = Quiet("bad", on_close="already gone"), Quiet("good")

    async with open_registry(
        {"bad": lambda _: bad, "good": lambda _: good}, context=CONTEXT, installed=()
    ):
        pass

    assert (bad.closed, good.closed) == (1, 1)


async def test_all_are_closed_when_the_server_fails() -> None:
    provider = Quiet("good")

    with pytest.raises(LookupError):
        async with open_registry({"good": lambda _: provider}, context=CONTEXT, installed=()):
            raise LookupError("the server failed")

    assert provider.closed == 1
