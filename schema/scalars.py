"""Times in milliseconds and in ISO 8601, exact decimals, secrets and JSON, as GraphQL scalars."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import NewType

import strawberry
from graphql import GraphQLError, ValueNode
from pydantic import SecretStr
from strawberry.types.scalar import ScalarDefinition

Timestamp = NewType("Timestamp", int)
Json = NewType("Json", object)
JSON_NAME = "JSON"

# Beyond this a double, which is what JavaScript has, skips milliseconds.
_SAFE = 2**53 - 1
_LONGEST_DECIMAL = 64


def _timestamp_in(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _SAFE:
        message = "Timestamp must be a whole number of milliseconds since the epoch"
        raise GraphQLError(f"{message}, not {str(value)[:40]!r}.")
    return value


def date_time(instant: int) -> datetime:
    """Return milliseconds since 1970 as what `DateTime` shows."""
    return datetime.fromtimestamp(instant / 1000, UTC)


def _date_time_out(value: datetime) -> str:
    at = value.astimezone(UTC).replace(tzinfo=None)
    return at.isoformat(timespec="milliseconds") + "Z"


def _decimal_in(value: object) -> Decimal:
    if isinstance(value, str) and len(value) <= _LONGEST_DECIMAL:
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite():
            return number
    raise GraphQLError(f'Decimal must be a string such as "0.1", not {str(value)[:40]!r}.')


def _decimal_out(value: Decimal) -> str:
    return f"{value:f}"


def _secret_in(value: object) -> SecretStr:
    if not isinstance(value, str):
        raise GraphQLError("Secret must be a string.")
    return SecretStr(value)


def _secret_in_document(_: ValueNode, __: object = None) -> SecretStr:
    # Documents are kept: in caches, by those who persist them, in the history of tools.
    raise GraphQLError("Secret is taken from variables only, never from the document itself.")


def _secret_out(_: object) -> str:
    raise GraphQLError("Secret is never shown.")


SCALARS: dict[object, ScalarDefinition] = {
    Timestamp: strawberry.scalar(
        name="Timestamp",
        description="An instant, as whole milliseconds since 1970-01-01T00:00:00Z.",
        serialize=int,
        parse_value=_timestamp_in,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="An instant in ISO 8601, UTC: `2026-11-20T10:15:00.000Z`.",
        serialize=_date_time_out,
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description="An exact decimal number, as a string: amounts of money are never floats.",
        serialize=_decimal_out,
        parse_value=_decimal_in,
    ),
    SecretStr: strawberry.scalar(
        name="Secret",
        description="Text that is never shown again. Send it as a variable: documents are kept.",
        serialize=_secret_out,
        parse_value=_secret_in,
        parse_literal=_secret_in_document,
    ),
    Json: strawberry.scalar(
        name=JSON_NAME,
        description="Any JSON value, 32 levels deep at most; the field says how large.",
        serialize=lambda value: value,
        parse_value=lambda value: value,
    ),
}
