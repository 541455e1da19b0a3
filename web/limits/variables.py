"""How large the variables of one request may be."""

from __future__ import annotations

from typing import Any

from web.graphql_request import BadRequest

MAX_VALUES = 10_000
MAX_NAMES = 500
"""In one object: each unknown name is told with the whole object around it."""
MAX_CHARACTERS = 250_000


def check_variables(variables: dict[str, Any] | None) -> None:
    """Raise `BadRequest` for more than `MAX_VALUES`, `MAX_NAMES` or `MAX_CHARACTERS`.

    What is refused for its type is searched for names that look like it, and written into the
    error, which takes longer than reading it did. Looks at no more than it allows.
    """
    if not variables:
        return
    values, characters = 0, 0
    pending: list[Any] = [variables]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            if len(value) > MAX_NAMES:
                raise BadRequest(f"An object in the variables has more than {MAX_NAMES} names.")
            values += len(value)
            characters += sum(map(len, value))
            pending.extend(value.values())
        elif isinstance(value, list):
            values += len(value)
            pending.extend(value)
        if values > MAX_VALUES:
            raise BadRequest(f"The variables hold more than {MAX_VALUES} values.")
        if characters > MAX_CHARACTERS:
            raise BadRequest(f"The variables hold more than {MAX_CHARACTERS} characters of text.")
