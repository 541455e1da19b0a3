"""Documents and variables that hold much of one thing, sent to the server that faces the world.

That refusing them takes little is tested where the limits are. Here no way in leads past them.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.limits import documents, numbered, variables
from tests.abuse.target import Target, codes
from tests.abuse.transports import Answer, Over, over_post, over_socket

REFUSALS = {
    *("BAD_REQUEST", "BAD_USER_INPUT", "COST_EXCEEDED", "GRAPHQL_PARSE_FAILED"),
    *("GRAPHQL_VALIDATION_FAILED", "OPERATION_RESOLUTION_FAILURE"),
}
COSTLY = {
    "a window for each alias": "{"
    + numbered(
        400,
        'a#:candles(series:{provider:"sim",symbol:"BTC/USDT",timeframe:"1m"},last:5000){cursor}',
    )
    + "}",
    "a window for each symbol": '{ symbols(provider: "sim", first: 500) { nodes {'
    ' candles(timeframe: "1m", last: 5000) { candles { close } } } } }',
    "lists that lead to each other": "{ markets { providers { markets { providers { markets {"
    " providers { markets { name } } } } } } } }",
    "logins under aliases": "mutation($i: LoginInput!) {"
    + numbered(400, "a#:login(input:$i){__typename}")
    + "}",
}


HARMLESS = {"depth without fields"}
"""What may be answered: fragments without fields add nothing to do."""
HOSTILE: dict[str, dict[str, Any]] = {
    **{name: {"query": text} for name, text in documents() if name not in HARMLESS},
    **{name: {"query": text, "variables": given} for name, text, given in variables()},
    **{name: {"query": text} for name, text in COSTLY.items()},
}


@pytest.mark.parametrize("over", [over_post, over_socket])
async def test_every_hostile_document_is_refused(target: Target, over: Over) -> None:
    found = {name: await over(target, asked, None) for name, asked in HOSTILE.items()}

    let_through = {name: answer for name, answer in found.items() if not refused(answer)}
    assert let_through == {}


def refused(answer: Answer) -> bool:
    return answer == {"closed": 1009} or (bool(codes(answer)) and set(codes(answer)) <= REFUSALS)
