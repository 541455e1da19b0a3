"""Every setting, read once from the environment and `.env`, checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.asyncio.connection import parse_url

from market.errors import BargraphError


class WrongSettings(BargraphError):
    """Settings that cannot be used; the message names each with its value and what is allowed."""

    code = "WRONG_SETTINGS"


class Role(StrEnum):
    """What a process does: answer clients, feed what they watch, or both."""

    API = "api"
    FEEDS = "feeds"
    ALL = "all"


_HOST = r"([^\s:@\[\]]*|\[[0-9a-fA-F:.]+(%\w+)?\])(:\d{1,5})?"
_HOSTS = re.compile(rf"{_HOST}(,{_HOST})*")


def _url_of(*schemes: str) -> AfterValidator:
    allowed = " or ".join(f"{scheme}://" for scheme in schemes)

    def check(url: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(url.get_secret_value())
        except ValueError:
            raise ValueError("must be a URL") from None  # what it says may quote a secret
        if parts.scheme not in schemes:
            raise ValueError(f"must be a URL that begins with {allowed}")
        if not _HOSTS.fullmatch(parts.netloc.rpartition("@")[2]):
            raise ValueError(
                "must be a URL with a host and, if any, a port in digits; special characters of a "
                "password are written as %XX"
            )
        return url

    return AfterValidator(check)


def _redis_options(url: SecretStr) -> SecretStr:
    try:
        parse_url(url.get_secret_value())
    except ValueError as error:
        raise ValueError(f"must be a URL that redis-py understands; it says: {error}") from None
    return url


def _key(key: SecretStr) -> SecretStr:
    # What a header cannot carry is refused here; where it is sent, errors would quote it.
    if not re.fullmatch(r"[!-~]{1,200}", key.get_secret_value()):
        raise ValueError("must be 1 to 200 letters, digits and signs without spaces")
    return key


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError("must be a folder that exists")
    return path


def _no_file(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ValueError("must be a folder or not exist yet")
    return path


def _midnight(value: object) -> object:
    """Let a date alone mean its first instant, UTC."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return f"{value}T00:00:00Z"
    return value


def _names(value: object) -> object:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


def _origins(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for name in names or ():
        parts = urlsplit(name)
        if parts.scheme not in {"http", "https"} or name != f"{parts.scheme}://{parts.netloc}":
            raise ValueError("must be origins, each a scheme and a host, without a path")
    return names


class Settings(BaseSettings):
    """What the environment says. Names are the fields in capitals."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address to serve on")
    port: int = Field(8000, ge=0, le=65535, description="Port to serve on; 0 takes a free one")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged"
    )

    database_url: Annotated[SecretStr, _url_of("postgresql", "postgres")] | None = Field(
        None, description="PostgreSQL for candles; absent: embedded"
    )
    accounts_url: (
        Annotated[SecretStr, _url_of("mysql+asyncmy", "mariadb+asyncmy", "postgresql+asyncpg")]
        | None
    ) = Field(None, description="Database for accounts; absent: embedded")
    redis_url: (
        Annotated[SecretStr, _url_of("redis", "rediss", "unix"), AfterValidator(_redis_options)]
        | None
    ) = Field(None, description="Redis for cache and broadcast; absent: embedded")
    redis_prefix: str = Field(
        "bargraph:", pattern=r"^[\w.:-]{1,64}$", description="Begins every key in Redis"
    )
    data_dir: Annotated[Path, AfterValidator(_no_file)] = Field(
        Path(".bargraph"), description="Folder where the embedded servers keep theirs"
    )
    database_pool: int = Field(10, ge=1, le=500, description="Connections to PostgreSQL")
    redis_pool: int = Field(50, ge=2, le=5000, description="Connections to Redis")
    statement_timeout: float = Field(
        30, gt=0, le=3600, description="Seconds one SQL statement may take"
    )

    ccxt_exchanges: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        ("binance", "kraken", "coinbase", "okx", "bybit"),
        description="Exchanges to offer through ccxt, by ccxt's names, separated by commas",
    )
    alpaca_key_id: Annotated[SecretStr, AfterValidator(_key)] | None = Field(
        None, description="Id of the server's key at Alpaca, for market data; absent: no `alpaca`"
    )
    alpaca_secret_key: Annotated[SecretStr, AfterValidator(_key)] | None = Field(
        None, description="Secret of the server's key at Alpaca"
    )
    alpaca_feed: Literal["iex", "sip"] = Field(
        "iex", description="Feed of Alpaca's stocks where a series names none; sip is paid for"
    )
    replay_dir: Annotated[Path, AfterValidator(_folder)] | None = Field(
        None, description="Folder of recordings to replay; absent: none"
    )
    replay_from: Annotated[AwareDatetime | None, BeforeValidator(_midnight)] = Field(
        None,
        description="Instant the replay starts at, such as 2025-01-31T14:30:00Z; "
        "absent: the close of its newest bar",
    )
    replay_speed: Decimal = Field(
        Decimal(1), ge=0, le=1_000_000, description="Recorded time per real time; 0 stands still"
    )
    sim_seed: int = Field(1, ge=0, le=2**31, description="Which simulated market `sim` shows")

    max_bars: int = Field(10_000, ge=1, le=100_000, description="Bars one window may hold")
    max_pages: int = Field(
        10, ge=1, le=1000, description="Provider calls one series may cost a request"
    )
    settle: float = Field(
        120, ge=0, le=86_400, description="Seconds after its close that a bar is looked at again"
    )
    forming_ttl: float = Field(1, gt=0, le=60, description="Seconds a forming bar may be old")
    role: Role = Field(Role.ALL, description="What this process does: `api`, `feeds` or `all`")
    feed_grace: float = Field(
        30, ge=10, le=86_400, description="Seconds a live feed goes on after its last viewer left"
    )
    cache_bytes: int = Field(
        64 * 1024 * 1024, ge=0, description="Bytes of candles each process keeps"
    )
    encoded_bytes: int = Field(
        64 * 1024 * 1024, ge=0, description="Bytes of JSON of closed candles each process keeps"
    )
    max_body: int = Field(
        1_000_000, ge=1000, description="Bytes of one HTTP request's body, or WebSocket message"
    )

    allowed_origins: Annotated[
        tuple[str, ...] | None, NoDecode, BeforeValidator(_names), AfterValidator(_origins)
    ] = Field(
        None,
        description="Other sites whose pages may subscribe, such as https://app.example.com, "
        "separated by commas; absent: none",
    )
    connection_init_timeout: float = Field(
        3, gt=0, le=300, description="Seconds a WebSocket has until its `connection_init`"
    )
    max_connections: int = Field(
        10_000, ge=1, le=1_000_000, description="WebSockets and streams one process may have"
    )
    max_connections_per_address: int = Field(
        4_000, ge=1, le=1_000_000, description="Of these, how many one address may have"
    )
    max_operations: int = Field(
        100, ge=1, le=10_000, description="Operations one WebSocket may run at a time"
    )

    @model_validator(mode="before")
    @classmethod
    def _absent(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take what is empty for absent, but for a list, which may have nothing on it."""
        return {name: v for name, v in values.items() if v != "" or name == "ccxt_exchanges"}


def load_settings(**overrides: Any) -> Settings:
    """Return the settings of this process. Raises `WrongSettings`, naming every wrong one."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise WrongSettings("\n".join(_line(each) for each in error.errors())) from None
    except (UnicodeDecodeError, OSError) as error:
        raise WrongSettings(f".env cannot be read: {type(error).__name__}") from None


def _line(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0])
    field = Settings.model_fields[name]
    secret = "SecretStr" in str(field.annotation)
    value = "***" if secret else str(error["input"])
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    limits = _limits(field)
    allowed = f"{message} ({limits})" if limits else message
    return f"{name.upper()}={value}: {allowed}. {field.description}."


def _limits(field: FieldInfo) -> str:
    words = (("ge", "at least"), ("gt", "more than"), ("le", "at most"))
    return ", ".join(
        f"{word} {limit}"
        for constraint in field.metadata
        for kind, word in words
        if (limit := getattr(constraint, kind, None)) is not None
    )
