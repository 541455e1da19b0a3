"""Choose the media type of a GraphQL response and encode it.

`application/graphql-response+json` tells request errors by their HTTP status; `application/json`,
which older clients ask for and which is the answer to `*/*`, gives them 200.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from starlette.responses import Response

from web.graphql_request import NotAcceptable

MODERN = "application/graphql-response+json"
LEGACY = "application/json"


@lru_cache(maxsize=256)
def negotiate(accept: str) -> str:
    """Return the media type, `MODERN` or `LEGACY`, that the header *accept* likes best.

    Between equals the one that is named goes before the one a wildcard covers, `MODERN` before
    `LEGACY` where both are named, and `LEGACY` where neither is. Raises `NotAcceptable`.
    """
    if not accept.strip():
        return LEGACY
    modern, legacy = _preference(accept, MODERN), _preference(accept, LEGACY)
    if not modern[0] and not legacy[0]:
        raise NotAcceptable(f"The answer comes as {MODERN} or {LEGACY}: accept one of them.")
    named = modern[1]
    return MODERN if modern > legacy or (modern == legacy and named) else LEGACY


def _preference(accept: str, offer: str) -> tuple[float, bool]:
    """Return the weight of *offer* (0: not acceptable) and whether it is named outright."""
    ranges = {offer: 3, "application/*": 2, "*/*": 1}
    found, weight = 0, 0.0
    for choice in accept.split(","):
        media_range, *parameters = (part.strip().lower() for part in choice.split(";"))
        if (specificity := ranges.get(media_range, 0)) > found:
            found, weight = specificity, _weight(parameters)
    return weight, found == 3


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, weight = parameter.partition("=")
        if name.strip() == "q":
            try:
                value = float(weight)
            except ValueError:
                return 0.0
            return value if 0 <= value <= 1 else 0.0
    return 1.0


def graphql_response(
    payload: dict[str, Any],
    media_type: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    head: bool = False,
) -> Response:
    """Return *payload* as an HTTP response, without its body where *head*.

    `orjson.Fragment`s inside the payload go out as they are. Raises `orjson.JSONEncodeError` where
    the payload has no JSON form.
    """
    response = Response(
        orjson.dumps(payload),
        status,
        headers={
            "content-type": f"{media_type}; charset=utf-8",
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            **(headers or {}),
        },
    )
    if head:
        response.body = b""
    return response
