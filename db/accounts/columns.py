"""Column types that mean the same on MariaDB and on PostgreSQL.

Migrations name these types, so none of them ever changes its meaning: a new meaning is a new type.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Dialect, LargeBinary, String, Text, Uuid
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

_BYTE_BY_BYTE = "utf8mb4_nopad_bin"
"""Tells 'key-A' from 'key-a' and from 'key-A ', which MariaDB's default collation does not."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant_of(milliseconds: int) -> datetime:
    """Return the instant, UTC-aware, that a clock reads as *milliseconds* since 1970."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _is_mariadb(dialect: Dialect) -> bool:
    return dialect.name == "mariadb"


class Instant(TypeDecorator[datetime]):
    """A UTC-aware time with microseconds. A naive one is refused before it is stored."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if _is_mariadb(dialect):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without its zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if _is_mariadb(dialect) else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Exact(TypeDecorator[str]):
    """A string of at most *length* characters that equals only itself, byte by byte."""

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if _is_mariadb(dialect):
            exact = mysql.VARCHAR(self.length, charset="utf8mb4", collation=_BYTE_BY_BYTE)
            return dialect.type_descriptor(exact)
        return dialect.type_descriptor(String(self.length, collation="C"))


class Id(TypeDecorator[UUID]):
    """A UUID: PostgreSQL's own type, and 16 bytes on MariaDB."""

    impl = Uuid
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if _is_mariadb(dialect):
            return dialect.type_descriptor(mysql.BINARY(16))
        return dialect.type_descriptor(Uuid())

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return value.bytes if _is_mariadb(dialect) else value

    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:
        return UUID(bytes=bytes(value)) if isinstance(value, bytes | bytearray) else value


class Octets(TypeDecorator[bytes]):
    """At most *length* bytes, which an index can hold."""

    impl = LargeBinary
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if _is_mariadb(dialect):
            return dialect.type_descriptor(mysql.VARBINARY(self.length))
        return dialect.type_descriptor(LargeBinary())

    def process_result_value(self, value: Any, dialect: Dialect) -> bytes | None:
        return None if value is None else bytes(value)


class Document(TypeDecorator[Any]):
    """A JSON value kept as text in ASCII, with the order of its keys. NaN is refused."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if _is_mariadb(dialect):
            text = mysql.MEDIUMTEXT(charset="utf8mb4", collation=_BYTE_BY_BYTE)
            return dialect.type_descriptor(text)
        return dialect.type_descriptor(Text(collation="C"))

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return document_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


def document_text(value: Any) -> str:
    """Return *value* as the JSON that is stored. Raises `ValueError` for NaN and infinities."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
