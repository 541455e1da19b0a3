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
    InstanceOf,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.asyncio.connection import parse_url

from db.encryption import WeakKey, keys_in
from market.errors import BargraphError
from market.retention import Retention
from market.timeframe import MINUTE_FRAME
from market.window import DAY
from resolvers.identity.rules import Registration
from web.limits.proxies import network_of
from web.production import insecurities


class WrongSettings(BargraphError):
    """Settings that cannot be used; the message names each with its value and what is allowed."""

    code = "WRONG_SETTINGS"


class Role(StrEnum):
    """What a process does: answer clients, feed what they watch, run jobs, or all of it."""

    API = "api"
    FEEDS = "feeds"
    JOBS = "jobs"
    ALL = "all"

    @property
    def answers(self) -> bool:
        return self in {Role.API, Role.ALL}

    @property
    def feeds(self) -> bool:
        return self in {Role.FEEDS, Role.ALL}

    @property
    def runs_jobs(self) -> bool:
        return self in {Role.JOBS, Role.ALL}


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


def _server_keys(keys: SecretStr) -> SecretStr:
    try:
        found = keys_in(keys.get_secret_value())
    except WeakKey as error:
        raise ValueError(f"must be 32 random bytes each: {error}") from None
    if not found:
        raise ValueError("must be 32 random bytes each: there is none")
    return keys


def _page(url: str) -> str:
    # It goes into mails, where links are ASCII and a line has at most 998 characters.
    if not re.fullmatch(r"[!-~]{1,500}", url):
        raise ValueError(
            "must be a URL of at most 500 ASCII characters without spaces; a host of other letters "
            "is written in punycode, such as xn--brse-5qa.example, and elsewhere they are written "
            "as %XX"
        )
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL that begins with http:// or https://")
    return url.rstrip("/")


def _sender(sender: str) -> str:
    found = re.fullmatch(r"[^<>@\r\n]*<([^<>@\s]+@[^<>@\s]+)>|([^<>@\s]+@[^<>@\s]+)", sender)
    if found is None:
        raise ValueError("must be an address, such as Bargraph <bars@example.com>")
    if not (found[1] or found[2]).isascii():
        raise ValueError("must be an address in ASCII; write its domain in punycode (xn--...)")
    return sender


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


def _retention(value: object) -> object:
    return Retention.parse(value) if isinstance(value, str) else value


def _sources(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if not all(re.fullmatch(r"[^:\s]+:\S.*", name) for name in names or ()):
        raise ValueError("must be names like binance:BTC/USDT")
    return names


def _origins(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for name in names or ():
        parts = urlsplit(name)
        if (
            parts.scheme not in {"http", "https"}
            or not parts.hostname
            or "*" in name
            or name != f"{parts.scheme}://{parts.netloc}"
        ):
            raise ValueError("must be origins, each a scheme and a host, without a path or a *")
    return names


def _networks(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for name in names or ():
        try:
            network_of(name)
        except ValueError as error:
            raise ValueError(
                f"must be addresses or networks, such as 10.0.0.0/8: {error}"
            ) from None
    return names


def _file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError("must be a file that exists")
    return path


class Settings(BaseSettings):
    """What the environment says. Names are the fields in capitals."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address to serve on")
    port: int = Field(8000, ge=0, le=65535, description="Port to serve on; 0 takes a free one")
    env: Literal["development", "test", "production"] = Field(
        "development",
        description="`production` refuses to start with settings that are not secure, and keeps "
        "names of the schema out of errors",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged"
    )
    log_format: Literal["text", "json"] | None = Field(
        None, description="Form of the log; absent: `json` in production, else `text`"
    )

    database_url: Annotated[SecretStr, _url_of("postgresql", "postgres")] | None = Field(
        None, description="PostgreSQL for candles; absent: embedded"
    )
    accounts_url: (
        Annotated[SecretStr, _url_of("mysql+asyncmy", "mariadb+asyncmy", "postgresql+asyncpg")]
        | None
    ) = Field(None, description="MariaDB or PostgreSQL for accounts; absent: beside the candles")
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
    accounts_pool: int = Field(10, ge=1, le=500, description="Connections to the accounts database")
    redis_pool: int = Field(50, ge=2, le=5000, description="Connections to Redis")
    statement_timeout: float = Field(
        30, gt=0, le=3600, description="Seconds one SQL statement may take"
    )

    encryption_keys: Annotated[SecretStr, AfterValidator(_server_keys)] | None = Field(
        None,
        description="Keys that encrypt credentials, each 32 random bytes in base64, separated by "
        "commas, the newest first; absent: made once in DATA_DIR",
    )
    token_keys: Annotated[SecretStr, AfterValidator(_server_keys)] | None = Field(
        None, description="Keys that sign access tokens, likewise; the first one signs"
    )
    registration: Registration = Field(
        Registration.OPEN, description="Who may register: `open`, `invitation` or `closed`"
    )
    public_url: Annotated[str, AfterValidator(_page)] | None = Field(
        None,
        description="Where people reach this server, for links in mails, such as "
        "https://bars.example.com; absent: HOST and PORT",
    )
    smtp_url: Annotated[SecretStr, _url_of("smtp", "smtps")] | None = Field(
        None,
        description="Mail server, such as smtp://user:password@mail.example.com:587; absent: "
        "mails are written to DATA_DIR/mail",
    )
    mail_from: Annotated[str, AfterValidator(_sender)] = Field(
        "Bargraph <bargraph@localhost>", description="Sender of mails"
    )
    audit_retention: int | None = Field(
        None,
        ge=30,
        le=36_500,
        description="Days that lines of the audit log are kept; absent: for ever",
    )
    password_hashes: int = Field(
        2,
        ge=1,
        le=64,
        description="Passwords one process checks at a time; each takes 64 MiB and a core",
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
    auto_backfill: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days that are filled by themselves when a chart without history is opened; "
        "0: none",
    )
    retention: Annotated[InstanceOf[Retention] | None, NoDecode, BeforeValidator(_retention)] = (
        Field(
            None,
            description="How long bars are kept, by timeframe, such as 1m:400d,1h:10y; absent: for "
            "ever",
        )
    )
    forming_ttl: float = Field(1, gt=0, le=60, description="Seconds a forming bar may be old")
    role: Role = Field(
        Role.ALL, description="What this process does: `api`, `feeds`, `jobs` or `all`"
    )
    ingest: Annotated[
        tuple[str, ...] | None, NoDecode, BeforeValidator(_names), AfterValidator(_sources)
    ] = Field(
        None,
        description="Symbols whose trades are stored, such as binance:BTC/USDT, separated by "
        "commas; absent: none",
    )
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

    max_cost: int = Field(
        100_000,
        ge=100,
        le=10_000_000,
        description="Points one operation may cost: about one for each bar, and each other field",
    )
    execution_timeout: float = Field(
        30, gt=0, le=3600, description="Seconds one query or mutation may take"
    )
    rate_queries: int = Field(
        1_200,
        ge=0,
        le=1_000_000,
        description="Queries and subscriptions a minute from one address, and five times as many "
        "of one user; 0: no limit",
    )
    rate_mutations: int = Field(
        300, ge=0, le=1_000_000, description="Mutations a minute, likewise; 0: no limit"
    )
    rate_sockets: int = Field(
        1_200,
        ge=0,
        le=1_000_000,
        description="WebSockets and streams opened a minute, likewise; 0: no limit",
    )
    rate_logins: int = Field(
        100,
        ge=0,
        le=1_000_000,
        description="Tries to sign in a minute from one address, a tenth of it to one account; "
        "passwords reset and mails asked for in an hour: a fifth; 0: no limit",
    )
    trusted_proxies: Annotated[
        tuple[str, ...] | None, NoDecode, BeforeValidator(_names), AfterValidator(_networks)
    ] = Field(
        None,
        description="Addresses and networks of proxies whose X-Forwarded-For and Forwarded are "
        "believed, separated by commas; absent: none",
    )
    public_market_data: bool = Field(
        True, description="Whether market data may be read without an account"
    )
    introspection: bool | None = Field(
        None, description="Whether clients may ask for the schema; absent: not in production"
    )
    graphiql: bool | None = Field(
        None, description="Whether GraphiQL is served; absent: not in production"
    )
    trusted_documents: Annotated[Path, AfterValidator(_file)] | None = Field(
        None,
        description="JSON file of documents by SHA-256; no others are answered. Absent: all are",
    )

    allowed_origins: Annotated[
        tuple[str, ...] | None, NoDecode, BeforeValidator(_names), AfterValidator(_origins)
    ] = Field(
        None,
        description="Other sites whose pages may subscribe and send mutations, such as "
        "https://app.example.com, separated by commas; absent: none",
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

    @property
    def in_production(self) -> bool:
        return self.env == "production"

    @property
    def log_form(self) -> Literal["text", "json"]:
        return self.log_format or ("json" if self.in_production else "text")

    @property
    def tells_schema(self) -> bool:
        return not self.in_production if self.introspection is None else self.introspection

    @property
    def shows_graphiql(self) -> bool:
        return not self.in_production if self.graphiql is None else self.graphiql

    @field_validator("retention")
    @classmethod
    def _fillable(cls, retention: Retention | None, read: ValidationInfo) -> Retention | None:
        """What is filled by itself is not dropped again."""
        kept = retention and retention.period(MINUTE_FRAME)
        if kept is not None and kept < read.data.get("auto_backfill", 0) * DAY:
            raise ValueError("must keep bars of 1m for as many days as AUTO_BACKFILL fills")
        return retention

    @model_validator(mode="before")
    @classmethod
    def _absent(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take what is empty for absent, but for a list, which may have nothing on it."""
        return {name: v for name, v in values.items() if v != "" or name == "ccxt_exchanges"}


def load_settings(**overrides: Any) -> Settings:
    """Return the settings of this process. Raises `WrongSettings`, naming every wrong one."""
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise WrongSettings("\n".join(_line(each) for each in error.errors())) from None
    except (UnicodeDecodeError, OSError) as error:
        raise WrongSettings(f".env cannot be read: {type(error).__name__}") from None
    if settings.in_production and (lines := list(insecurities(settings))):
        raise WrongSettings("\n".join(lines))
    return settings


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
