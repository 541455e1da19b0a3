"""What `ENV=production` refuses to start with."""

from __future__ import annotations

import pytest

from web.settings import Settings, WrongSettings, load_settings

GOOD = "kN3vYq7-uWc2Rz"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "postgresql://bars@db.example/bars"),
        ("database_url", "postgresql://bars:hunter2@db.example/bars"),
        ("database_url", "postgresql://bars:a-password-123@127.0.0.1,db.example/bars"),
        ("database_url", f"postgresql://{GOOD}:{GOOD}@db.example/bars"),
        ("database_url", "postgresql://app@/candles?host=db.example.com"),
        ("database_url", "postgresql://app@/candles?host=/run/postgresql,db.example.com"),
        ("database_url", "postgresql://app@/candles?host=127.0.0.1&host=db.example.com"),
        ("database_url", "postgresql://app@/candles?host=%5B2001:db8::5%5D:5432"),
        ("database_url", "postgresql://app@/candles?host=::5"),
        ("database_url", "postgresql://app@/candles?host=%5B"),
        ("accounts_url", "mysql+asyncmy://root:changeme1234@db.example/accounts"),
        ("accounts_url", "mysql+asyncmy://root@localhost/accounts?host=db.example"),
        ("redis_url", "redis:///0?host=cache.example"),
        ("redis_url", "redis://cache.example:6379/0"),
        ("redis_url", "rediss://:short@cache.example"),
        ("allowed_origins", "http://app.example"),
        ("allowed_origins", "https://app.example,http://10.0.0.5:8080"),
        ("rate_logins", "0"),
    ],
)
def test_production_refuses_what_is_not_secure_and_says_which(monkeypatch, name, value):
    monkeypatch.setenv(name.upper(), value)
    load_settings()
    monkeypatch.setenv("ENV", "production")

    with pytest.raises(WrongSettings) as refused:
        load_settings()

    assert str(refused.value).startswith(f"{name.upper()}=")
    assert "hunter2" not in str(refused.value)
    assert "changeme" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", f"postgresql://bars:{GOOD}@db.example/bars"),
        ("database_url", f"postgresql://db.example/bars?user=bars&password={GOOD}"),
        ("database_url", "postgresql://postgres@127.0.0.1:5432/postgres"),
        ("database_url", "postgresql:///bars?host=/run/postgresql"),
        ("database_url", "postgresql:///bars?host=@postgresql,/run/postgresql"),
        ("database_url", "postgresql://app@/bars?host=127.0.0.1:5432,%5B::1%5D:5433,LocalHost"),
        ("database_url", "postgresql://app@/bars?host=127.0.0.1&host=::1"),
        ("database_url", f"postgresql://bars@/bars?host=db.example&password={GOOD}"),
        ("redis_url", f"rediss://:{GOOD}@cache.example"),
        ("redis_url", "redis://localhost:6379/0"),
        ("redis_url", "unix:///run/redis.sock"),
        ("allowed_origins", "https://app.example,http://localhost:5173"),
        ("trusted_proxies", "10.0.0.0/8,fd00::/8"),
    ],
)
def test_production_starts_with_what_is_secure(monkeypatch, name, value):
    monkeypatch.setenv("ENV", "production")
    monkeypatch.setenv(name.upper(), value)

    assert load_settings().env == "production"


def test_all_that_is_not_secure_is_named_at_once(monkeypatch):
    monkeypatch.setenv("ENV", "production")
    monkeypatch.setenv("REDIS_URL", "redis://cache.example")
    monkeypatch.setenv("RATE_LOGINS", "0")

    with pytest.raises(WrongSettings) as refused:
        load_settings()

    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize("env", ["development", "production"])
@pytest.mark.parametrize("origin", ["*", "https://*", "https://*.example", "null"])
def test_no_start_opens_answers_to_every_page(monkeypatch, env, origin):
    monkeypatch.setenv("ENV", env)
    monkeypatch.setenv("ALLOWED_ORIGINS", origin)

    with pytest.raises(WrongSettings, match="must be origins"):
        load_settings()


def test_what_is_open_by_default_is_shut_in_production_unless_asked_for(monkeypatch):
    before = load_settings()
    monkeypatch.setenv("ENV", "production")
    shut = load_settings()
    for name in ("INTROSPECTION", "GRAPHIQL"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("LOG_FORMAT", "text")
    asked = load_settings()

    assert (before.tells_schema, before.shows_graphiql, before.log_form) == (True, True, "text")
    assert (shut.tells_schema, shut.shows_graphiql, shut.log_form) == (False, False, "json")
    assert (asked.tells_schema, asked.shows_graphiql, asked.log_form) == (True, True, "text")
