"""What can be wrong with a schema, and the one failure that stands for a store out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import asyncpg

from market.errors import BargraphError, InvalidBars, StoreUnavailable


class SchemaError(BargraphError):
    """The database does not hold the schema that this release was written for."""

    code: ClassVar[str] = "SCHEMA"


class SchemaEdited(SchemaError):
    """A migration was applied and then changed, or one was put in before others applied."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Migration {name} {reason}. Migrations are only ever added at the end.")
        self.name = name


class SchemaNewer(SchemaError):
    """The database has migrations that this release does not know."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            f"The database was migrated by a newer release (or for another mode): it has "
            f"{', '.join(self.names)}, which this one lacks."
        )


class SchemaMissing(SchemaError):
    """The database lacks migrations; *names* are to be applied first."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        super().__init__(f"The database lacks {', '.join(self.names)}. Migrate it first.")


class ServerTooOld(SchemaError):
    """The PostgreSQL server is older than the oldest supported one."""

    def __init__(self, version: int, oldest: int) -> None:
        super().__init__(f"PostgreSQL {version} is too old; at least {oldest} is needed.")
        self.version = version
        self.oldest = oldest


_UNREACHABLE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a statement meets on a connection just cut by the server
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedTableError,  # somebody drops the schema, or has not migrated it yet
)
_IMPOSSIBLE = (asyncpg.CheckViolationError, asyncpg.NumericValueOutOfRangeError)


@contextmanager
def store_failures() -> Iterator[None]:
    """Turn every way a server can be out of reach into `StoreUnavailable`.

    Values that PostgreSQL refuses become `InvalidBars`. Messages name the kind of failure and
    never the address.
    """
    try:
        yield
    except _IMPOSSIBLE as error:
        raise InvalidBars(
            f"the store refused values that cannot be true ({type(error).__name__})"
        ) from error
    except _UNREACHABLE as error:
        if isinstance(error, ValueError):
            raise  # an argument of the wrong type: asyncpg's InterfaceError, but our mistake
        raise StoreUnavailable(
            f"The candle store did not answer ({type(error).__name__})."
        ) from error
