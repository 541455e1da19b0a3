"""Connections to the database of accounts: one bounded pool, with the session settings it needs.

Statements, parameters and addresses never reach a log or an error: `hide_parameters`, no echo.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import ceil
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

SCHEMA = "accounts"
"""In PostgreSQL the tables lie in a schema of this name, so that they may share a database."""
_POOL_SECONDS = 5.0
_CONNECT_SECONDS = 5.0


@asynccontextmanager
async def open_engine(
    url: str, *, connections: int = 10, statement_timeout: float = 30.0
) -> AsyncIterator[AsyncEngine]:
    """Yield an engine that connects when it is used, at most *connections* times at once.

    *url* is one of PostgreSQL, with or without `+asyncpg`, as asyncpg reads it; or one of MariaDB
    with `+asyncmy`. *statement_timeout* is in seconds.
    """
    # Whatever is logged of the rest: these would log rows, and warnings that quote values.
    logging.getLogger("sqlalchemy").setLevel(logging.WARNING)
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    engine = (
        _postgres(url, connections, statement_timeout)
        if url.startswith("postgres")
        else _mariadb(url, connections, statement_timeout)
    )
    event.listen(engine.sync_engine, "handle_error", _as_the_drivers)
    try:
        yield engine
    finally:
        await engine.dispose()


def _as_the_drivers(failed: ExceptionContext) -> OperationalError | None:
    """Return what the system says of a connection in use as if the driver had said it.

    So it can be told from what else goes wrong while a transaction is open. The connection may be
    in the middle of an answer: it is not used again.
    """
    error = failed.original_exception
    if failed.sqlalchemy_exception is not None or not isinstance(error, OSError):
        return None
    failed.is_disconnect = True
    failed.invalidate_pool_on_disconnect = False
    return OperationalError(failed.statement, None, error, hide_parameters=True)


def _postgres(url: str, connections: int, statement_timeout: float) -> AsyncEngine:
    parts = urlsplit(url)
    dsn = urlunsplit(parts._replace(scheme=parts.scheme.removesuffix("+asyncpg")))
    milliseconds = str(int(statement_timeout * 1000))
    # asyncpg reads the URL itself: it knows sockets and several hosts, SQLAlchemy not all of it.
    connect = partial(
        asyncpg.connect,
        dsn,
        timeout=_CONNECT_SECONDS,
        command_timeout=statement_timeout + 5,
        server_settings={
            "application_name": "bargraph accounts",
            "search_path": SCHEMA,
            "timezone": "UTC",
            "statement_timeout": milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            "jit": "off",
        },
    )
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda *_, **__: connect(),
        isolation_level="READ COMMITTED",
        pool_size=connections,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def _mariadb(url: str, connections: int, statement_timeout: float) -> AsyncEngine:
    seconds = f"{statement_timeout:.3f}"
    return create_async_engine(
        mariadb_url(url),
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": int(_CONNECT_SECONDS),
            "read_timeout": int(statement_timeout) + 5,
            "init_command": (
                "SET SESSION time_zone='+00:00', innodb_lock_wait_timeout=10,"
                f" max_statement_time={seconds},"
                # Else the locks of a process that was cut off last for hours.
                f" idle_transaction_timeout={ceil(statement_timeout)},"
                " sql_mode='STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
                "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"
            ),
        },
        isolation_level="READ COMMITTED",
        pool_size=connections,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        pool_pre_ping=True,
        # A server closes what was idle for `wait_timeout`, often minutes only behind a proxy.
        pool_recycle=240,
        hide_parameters=True,
    )


def mariadb_url(url: str) -> URL:
    """Return *url* under the one name that makes SQLAlchemy ask for MariaDB, and not for MySQL."""
    return make_url(url).set(drivername="mariadb+asyncmy")
