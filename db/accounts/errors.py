"""What can go wrong below accounts: a database out of reach, rows that changed or are not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.errors import SchemaError
from market.errors import BadInput, BargraphError


class AccountsUnavailable(BargraphError):
    """The database of accounts did not answer; nobody can be told apart until it does."""

    code: ClassVar[str] = "ACCOUNTS_UNAVAILABLE"


class WrongServer(SchemaError):
    """The server that `ACCOUNTS_URL` names is not one that accounts can live in."""


class SeedDiffers(SchemaError):
    """Roles and permissions in the database are not those of this release."""


class NotFound(BargraphError):
    """There is no such thing, or it is somebody else's: nobody is told which. *kind* names it."""

    code: ClassVar[str] = "NOT_FOUND"

    def __init__(self, kind: str) -> None:
        super().__init__(f"There is no {kind} with this id.")
        self.kind = kind


class NameTaken(BargraphError):
    """A name that has to be unique is in use already; *kind* says of what, *field* names it."""

    code: ClassVar[str] = "NAME_TAKEN"

    def __init__(self, kind: str, *, field: str) -> None:
        super().__init__(f"There is a {kind} with this name already.")
        self.kind = kind
        self.field = field


class VersionConflict(BargraphError):
    """Somebody else changed it since it was read; *current* is the version it has now."""

    code: ClassVar[str] = "VERSION_CONFLICT"

    def __init__(self, kind: str, *, current: int) -> None:
        super().__init__(f"The {kind} was changed meanwhile; its version is {current} now.")
        self.kind = kind
        self.current = current


class TooMany(BargraphError):
    """One user has as many of these as anybody may; *most* is how many that are."""

    code: ClassVar[str] = "TOO_MANY"

    def __init__(self, kind: str, *, most: int) -> None:
        super().__init__(f"There may be at most {most} of the kind {kind}.")
        self.kind = kind
        self.most = most


class TooLarge(BadInput):
    """What is to be saved is longer than *most* bytes of JSON."""

    code: ClassVar[str] = "TOO_LARGE"

    def __init__(self, size: int, *, most: int, field: str) -> None:
        super().__init__(f"{field} takes {size} bytes; at most {most} are kept.", field=field)
        self.size = size
        self.most = most


class RowRefused(Exception):
    """The database refused values by a rule that nobody expected to be broken: a mistake of ours.

    It names the rule and nothing else: what drivers say quotes values.
    """

    def __init__(self, rule: str) -> None:
        super().__init__(f"The accounts database refused a row ({rule}).")
        self.rule = rule


@contextmanager
def accounts_failures() -> Iterator[None]:
    """Turn every way the database can be out of reach into `AccountsUnavailable`.

    Around what does nothing but ask the database. Messages and causes name the kind of failure
    only: drivers quote addresses, statements, values.
    """
    with statement_failures(), connecting_failures():
        yield


@contextmanager
def connecting_failures() -> Iterator[None]:
    """Name what comes, in the words of system and driver, of taking a connection."""
    try:
        yield
    except OSError as error:
        raise _unavailable(error) from None
    except Exception as error:
        # Drivers' own errors come unwrapped while a connection is made.
        if type(error).__module__.partition(".")[0] not in {"asyncpg", "asyncmy"}:
            raise
        raise _unavailable(error) from None


@contextmanager
def statement_failures() -> Iterator[None]:
    """Name what comes of statements, as SQLAlchemy tells it; anything else is the caller's own."""
    try:
        yield
    except PoolTimeout as error:
        raise _unavailable(error) from None
    except InvalidRequestError as error:
        if "is not a MariaDB variant" in str(error):
            raise WrongServer("ACCOUNTS_URL names a MySQL server; MariaDB is needed.") from None
        raise
    except DBAPIError as error:
        rule = _broken_rule(error)
        if rule is not None:
            raise RowRefused(rule) from None
        if _is_a_mistake(error):
            raise
        raise _unavailable(error.orig or error) from None


def _unavailable(error: BaseException) -> AccountsUnavailable:
    return AccountsUnavailable(f"The accounts database did not answer ({type(error).__name__}).")


def _broken_rule(error: DBAPIError) -> str | None:
    """Return what about the values was refused, None if they were not."""
    state = _state(error)
    if isinstance(error, IntegrityError):
        return violated(error) or state or "integrity"
    causes = {type(error.orig).__name__, type(getattr(error.orig, "__cause__", None)).__name__}
    if state[:2] == "22" or "DataError" in causes:
        return state or "data"
    return None


def _is_a_mistake(error: DBAPIError) -> bool:
    """Whether a statement is wrong. It is told as it is: it quotes names, and no values."""
    state = _state(error)
    if state:
        return state[:2] == "42"
    return type(error.orig).__name__ in {"ProgrammingError", "NotSupportedError"}


def _state(error: DBAPIError) -> str:
    state = getattr(error.orig, "sqlstate", None)
    return state if isinstance(state, str) else ""


_KEY_AT_THE_END = re.compile(r"for key '(?:[^'.]*\.)?([A-Za-z0-9_]+)'\W*$")
_FOREIGN_KEY = re.compile(r"CONSTRAINT `([A-Za-z0-9_]+)` FOREIGN KEY")


def violated(error: IntegrityError) -> str:
    """Return the name of the constraint that refused a row, empty if the database told none."""
    cause = getattr(error.orig, "__cause__", None)
    name = getattr(cause, "constraint_name", None)
    if isinstance(name, str):
        return name
    # The text alone: written together with its number, its quotes may come out escaped.
    said = str(error.orig.args[-1]) if error.orig is not None and error.orig.args else ""
    match = _KEY_AT_THE_END.search(said) or _FOREIGN_KEY.search(said)
    return match[1] if match else ""
