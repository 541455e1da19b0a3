"""Settings decide whether Alpaca is there, and why not."""

from __future__ import annotations

from typing import Any

import pytest

from db.embedded.servers import EmbeddedServers
from tests.api import served, settings_over

PROVIDERS = "{ providers { name disabled attribution capabilities } }"
BOTH = {"alpaca_key_id": "PKTEST", "alpaca_secret_key": "TheSecret"}


async def alpaca_of(embedded: EmbeddedServers, url: str, **given: str) -> dict[str, Any]:
    async with served(settings_over(embedded, url, **given)) as api:
        answer = await api.ask(PROVIDERS)
    assert "TheSecret" not in str(answer)
    return next(each for each in answer.data["providers"] if each["name"] == "alpaca")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "ALPACA_KEY_ID and ALPACA_SECRET_KEY must be set"),
        ({"alpaca_key_id": "PKTEST"}, "ALPACA_SECRET_KEY must be set"),
        ({"alpaca_secret_key": "TheSecret"}, "ALPACA_KEY_ID must be set"),
    ],
)
async def test_without_both_keys_it_is_listed_with_the_reason(
    embedded: EmbeddedServers, store_url: str, given: dict[str, str], reason: str
) -> None:
    alpaca = await alpaca_of(embedded, store_url, **given)

    assert (alpaca["disabled"], alpaca["capabilities"]) == (reason, [])


async def test_with_both_keys_it_is_there_and_says_its_feed(
    embedded: EmbeddedServers, store_url: str
) -> None:
    alpaca = await alpaca_of(embedded, store_url, **BOTH, alpaca_feed="sip")

    assert alpaca["disabled"] is None
    assert "SIP" in alpaca["attribution"]
    assert {"HISTORY", "TRADES_HISTORY", "LIVE_BARS", "LIVE_BOOKS"} <= set(alpaca["capabilities"])
