"""Settings: what is refused and how that is told, where they come from, and what they hide."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from market.retention import Retention
from web.settings import Settings, WrongSettings, load_settings

PASSWORD = "hunter2"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings, in a folder without a `.env`."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


# For every setting values that are wrong, and a part of what is said to be allowed instead. A
# name in CCXT_EXCHANGES that ccxt does not have is a provider that is disabled, no wrong setting;
# any HOST may be an address of the machine until it is tried.
WRONG = {
    "port": (["-1", "65536", "8000.5", "http", "nan"], "at least 0, at most 65535"),
    "log_level": (["loud", "5"], "'debug', 'info', 'warning' or 'error'"),
    "log_format": (["xml", "JSON lines"], "'text' or 'json'"),
    "database_url": (["mysql://h/d", "h", "postgresql://u:p@h:x/d"], "postgresql://|port"),
    "accounts_url": (["mysql://h/d", "sqlite:///d", "mysql+asyncmy://h:x/d"], "mysql+asyncmy|port"),
    "redis_url": (["http://h", "h", "redis://h:x", "redis://h?db=x"], "redis://|port|'db'"),
    "redis_prefix": (["two words", "*", "x" * 65], "pattern"),
    "data_dir": (["file"], "folder"),
    "database_pool": (["0", "501", "ten"], "at least 1, at most 500"),
    "accounts_pool": (["0", "501"], "at least 1, at most 500"),
    "redis_pool": (["1", "5001", "inf"], "at least 2, at most 5000"),
    "statement_timeout": (["0", "nan", "inf", "3601", "soon"], "more than 0, at most 3600"),
    "encryption_keys": (["short", "AAAA", "A" * 43 + "="], "32 random bytes"),
    "token_keys": (["***", ","], "32 random bytes"),
    "registration": (["anybody", "OPEN"], "'open', 'invitation' or 'closed'"),
    "public_url": (["bars.example.com", "ftp://h", "https://h/?a=b"], "https://"),
    "smtp_url": (["mail.example.com", "http://h", "smtp://h:x"], "smtp://|port"),
    "mail_from": (["nobody", "a@b@c", "two words@h", "bars@börse.example"], "address"),
    "audit_retention": (["29", "0", "40000", "long"], "at least 30, at most 36500"),
    "password_hashes": (["0", "65", "two"], "at least 1, at most 64"),
    "alpaca_key_id": (["two words", "\u00e9", "x" * 201], "without spaces"),
    "alpaca_secret_key": (["two words", "line\nbreak", "x" * 201], "without spaces"),
    "alpaca_feed": (["otc", "SIP", "best"], "'iex' or 'sip'"),
    "replay_dir": (["absent", "file"], "folder that exists"),
    "replay_from": (
        ["yesterday", "2025-01-31T14:30:00", "nan", "1e30"],
        "T14:30:00Z",
    ),
    "replay_speed": (["-1", "nan", "inf", "1000001", "fast"], "at least 0, at most 1000000"),
    "sim_seed": (["-1", "2147483649", "1.5"], "at least 0, at most 2147483648"),
    "max_bars": (["0", "100001", "1e3x"], "at least 1, at most 100000"),
    "max_pages": (["0", "1001", "nan"], "at least 1, at most 1000"),
    "settle": (["-1", "86401", "nan", "inf"], "at least 0, at most 86400"),
    "auto_backfill": (["-1", "36501", "7.5", "nan"], "at least 0, at most 36500"),
    "retention": (["1m", "1m:6d", "1m:400d,1h:9d", "7x:9d"], "1m:400d|at least|timeframes"),
    "forming_ttl": (["0", "61", "nan", "-inf"], "more than 0, at most 60"),
    "cache_bytes": (["-1", "64MB"], "at least 0"),
    "encoded_bytes": (["-1", "inf"], "at least 0"),
    "max_body": (["999", "1MB"], "at least 1000"),
    "role": (["bots", "API"], "'api', 'feeds', 'jobs' or 'all'"),
    "ingest": (["sim", "sim:", ":BTC/USDT", "sim:BTC/USDT,kraken"], "like binance:BTC/USDT"),
    "feed_grace": (["9", "86401", "nan"], "at least 10, at most 86400"),
    "env": (["prod", "PRODUCTION"], "'development', 'test' or 'production'"),
    "max_cost": (["99", "10000001", "1e3x"], "at least 100, at most 10000000"),
    "execution_timeout": (["0", "3601", "nan"], "more than 0, at most 3600"),
    "rate_queries": (["-1", "1000001"], "at least 0, at most 1000000"),
    "rate_mutations": (["-1", "1000001"], "at least 0, at most 1000000"),
    "rate_sockets": (["-1", "1000001"], "at least 0, at most 1000000"),
    "rate_logins": (["-1", "1000001"], "at least 0, at most 1000000"),
    "trusted_proxies": (["proxy", "10.0.0.0/33", "0.0.0.0/0", "::/0"], "10.0.0.0/8"),
    "public_market_data": (["perhaps", "2"], "boolean"),
    "introspection": (["perhaps", "2"], "boolean"),
    "graphiql": (["perhaps", "2"], "boolean"),
    "trusted_documents": (["absent", "folder"], "file that exists"),
    "allowed_origins": (["app.example", "https://a.example/", "file://x", "*"], "origins"),
    "connection_init_timeout": (["0", "301", "nan"], "more than 0, at most 300"),
    "max_connections": (["0", "1000001"], "at least 1, at most 1000000"),
    "max_connections_per_address": (["0", "1.5"], "at least 1, at most 1000000"),
    "max_operations": (["0", "10001"], "at least 1, at most 10000"),
}
ANYTHING_GOES = {"host", "ccxt_exchanges"}
SECRET = {"database_url", "accounts_url", "redis_url", "alpaca_key_id", "alpaca_secret_key"}
SECRET |= {"encryption_keys", "token_keys", "smtp_url"}


def test_every_setting_is_tried_with_a_wrong_value():
    assert set(Settings.model_fields) == set(WRONG) | ANYTHING_GOES


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [(name, value, allowed) for name, (values, allowed) in WRONG.items() for value in values],
)
def test_a_wrong_one_is_named_with_its_value_and_what_is_allowed(monkeypatch, name, value, allowed):
    Path("file").touch()
    monkeypatch.setenv(name.upper(), value)

    with pytest.raises(WrongSettings) as refusal:
        load_settings()

    (line,) = str(refusal.value).splitlines()
    shown = "***" if name in SECRET else value
    assert line.startswith(f"{name.upper()}={shown}: ")
    assert any(part in line for part in allowed.split("|"))
    assert Settings.model_fields[name].description in line


def test_all_wrong_ones_are_named_at_once(monkeypatch):
    for name, (values, _) in WRONG.items():
        monkeypatch.setenv(name.upper(), values[0])
    Path("file").touch()

    with pytest.raises(WrongSettings) as refusal:
        load_settings()

    named = [line.partition("=")[0].lower() for line in str(refusal.value).splitlines()]
    assert sorted(named) == sorted(WRONG)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://someone:{PASSWORD}@h/d",
        f"postgresql://someone:{PASSWORD}@h:x/d",
        f"postgresql://someone:{PASSWORD}/@h/d",
        f"postgresql://someone:{PASSWORD}@[h/d",
    ],
)
def test_a_refused_url_does_not_give_its_password_away(monkeypatch, url):
    monkeypatch.setenv("DATABASE_URL", url)

    with pytest.raises(WrongSettings) as refusal:
        load_settings()

    assert PASSWORD not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


def test_passwords_of_accepted_urls_stay_out_of_what_is_printed(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"postgresql://someone:{PASSWORD}@h/d")
    monkeypatch.setenv("ACCOUNTS_URL", f"mysql+asyncmy://someone:{PASSWORD}@h/d")
    monkeypatch.setenv("REDIS_URL", f"rediss://someone:{PASSWORD}@h:6379/0")

    monkeypatch.setenv("ALPACA_SECRET_KEY", PASSWORD)

    settings = load_settings()

    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert PASSWORD not in shown
    assert settings.database_url is not None
    assert PASSWORD in settings.database_url.get_secret_value()


@pytest.mark.parametrize(
    "url",
    [
        "postgres:///d?host=/run/postgresql",
        "postgresql://h",
        "postgresql://u:p%2F%40@[::1]:5432/d?sslmode=require",
        "postgresql://u@a:1,b:2/d",
    ],
)
def test_the_urls_of_real_servers_are_accepted(monkeypatch, url):
    monkeypatch.setenv("DATABASE_URL", url)

    settings = load_settings()

    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == url


@pytest.mark.parametrize(
    "url", ["https://börse.example", "https://h/börse", "https://h/a b", f"https://h/{'x' * 500}"]
)
def test_a_page_that_no_mail_could_name_is_refused_with_how_to_write_it(monkeypatch, url):
    monkeypatch.setenv("PUBLIC_URL", url)

    with pytest.raises(WrongSettings, match=r"^PUBLIC_URL=.*punycode, such as xn--"):
        load_settings()


@pytest.mark.parametrize("url", ["https://xn--brse-5qa.example/", "https://h:8443/b%C3%B6rse"])
def test_a_page_of_other_letters_is_accepted_in_ascii(monkeypatch, url):
    monkeypatch.setenv("PUBLIC_URL", url)

    assert load_settings().public_url == url.rstrip("/")


def test_a_file_gives_settings_and_the_environment_wins(monkeypatch):
    Path(".env").write_text("PORT=9001\nMAX_BARS=77\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("PORT", "9002")

    settings = load_settings()

    assert (settings.port, settings.max_bars) == (9002, 77)


def test_a_wrong_line_in_the_file_is_told_the_same_way():
    Path(".env").write_text("MAX_BARS=many\n")

    with pytest.raises(WrongSettings, match=r"^MAX_BARS=many: "):
        load_settings()


def test_a_file_that_is_no_text_is_refused():
    Path(".env").write_bytes(b"PORT=\xff\xfe")

    with pytest.raises(WrongSettings, match=r"^\.env cannot be read"):
        load_settings()


def test_an_empty_value_is_an_absent_one(monkeypatch):
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("DATABASE_URL", "")

    settings = load_settings()

    assert (settings.port, settings.database_url) == (8000, None)


@pytest.mark.parametrize(
    ("text", "names"),
    [("", ()), ("kraken", ("kraken",)), (" kraken , okx,", ("kraken", "okx"))],
)
def test_exchanges_are_named_between_commas(monkeypatch, text, names):
    monkeypatch.setenv("CCXT_EXCHANGES", text)

    assert load_settings().ccxt_exchanges == names


def test_settings_cannot_be_changed():
    settings = load_settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 9000


def test_every_setting_says_what_it_is_for():
    assert all(field.description for field in Settings.model_fields.values())


def test_a_date_alone_is_when_it_begins(monkeypatch):
    monkeypatch.setenv("REPLAY_FROM", "2025-01-15")

    assert load_settings().replay_from == datetime(2025, 1, 15, tzinfo=UTC)


def test_what_is_filled_by_itself_is_kept(monkeypatch):
    monkeypatch.setenv("AUTO_BACKFILL", "30")
    monkeypatch.setenv("RETENTION", "1m:29d")

    with pytest.raises(WrongSettings, match=r"RETENTION=1m:29d: .*AUTO_BACKFILL"):
        load_settings()

    monkeypatch.setenv("RETENTION", "1m:30d")
    assert load_settings().retention == Retention.parse("1m:30d")
