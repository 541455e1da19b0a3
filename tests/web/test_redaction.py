"""What is secret is in no line of the log, however it came to be there."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from re import _parser
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from resolvers.identity.tokens import RefreshToken, new_api_token
from tests.accounts import NOW
from web import redaction
from web.redaction import LONGEST, Redaction, is_secret, secrets_of

SECRET = "hunter2-AbCdEf"
PEM = f"-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n{SECRET}\n-----END EC PRIVATE KEY-----"
JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhYmMifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "text",
    [
        f"cannot reach postgresql://bars:{SECRET}@db.example:5432/bars",
        f"redis://:{SECRET}@cache and mysql+asyncmy://u:p@{SECRET}@db/x",
        f"GET https://venue.example/account?apiKey={SECRET}&limit=5",
        f"Authorization: Bearer {SECRET}",
        f"authorization=Basic {SECRET}",
        f"Cookie: theme=dark; bargraph_refresh={SECRET}",
        f"(b'x-api-key', b'{SECRET}')",
        f"{{'password': '{SECRET}', 'name': 'ada'}}",
        f'{{"newPassword": "{SECRET} with more"}}',
        json.dumps(json.dumps({"refreshToken": SECRET})),
        f"Credential(key='{SECRET}', secret='{SECRET}')",
        f"totp={SECRET}",
        f"the key: {SECRET}",
        PEM,
        f'{{"secret": "{PEM}", "name": "ada"}}',
        f"secret={PEM}",
        repr({"private_key": PEM}),
        json.dumps({"secret": PEM}),
        PEM.replace("EC PRIVATE KEY", "PGP PRIVATE KEY BLOCK"),
        "-----BEGIN PRIVATE KEY-----\n" + f"{'A' * 64}\n" * 200 + SECRET,
        "x" * (LONGEST // 2 - 40) + PEM + "y" * LONGEST,
        json.dumps({"secret": f'ab"cd{SECRET}'}),
        json.dumps(json.dumps({"secret": f'ab"cd\\{SECRET}'})),
        json.dumps(json.dumps(json.dumps({"secret": f'ab"cd{SECRET}'}))),
        repr(json.dumps({"secret": f'ab"cd{SECRET}'})),
        repr({"secret": f"ab'c\"d{SECRET}"}),
        json.dumps({"password": "ab\\", "secret": SECRET}),
        f"password=u'{SECRET}'",
        f"OK-ACCESS-SIGN: {SECRET}==",
        f"https://venue.example/order?apiSign={SECRET}&limit=5",
        json.dumps({"sign": SECRET}),
        f"(b'X-BAPI-SIGN', b'{SECRET}')",
    ],
)
def test_what_looks_like_a_secret_is_hidden_in_any_text(text):
    assert SECRET not in Redaction().text(text)


NASTY = st.text("\"'\\\n,:{}ab", max_size=8)


@given(
    before=NASTY,
    after=NASTY,
    name=st.sampled_from(["secret", "apiKey", "sign"]),
    quoting=st.lists(st.sampled_from([json.dumps, repr]), min_size=1, max_size=3),
)
def test_a_value_in_quotes_is_hidden_to_its_end_whatever_it_holds_and_whatever_quotes_it(
    before, after, name, quoting
):
    text = {"id": 1, name: f"{before}{SECRET}{after}", "more": "told"}
    for quote in quoting:
        text = quote(text)

    assert SECRET not in Redaction().text(text)


def repetitions(parsed: Iterable[Any]) -> Iterator[tuple[object, int]]:
    """Yield the kind of each repetition in a parsed pattern, and how long it may be."""
    for each in parsed:
        if isinstance(each, tuple) and len(each) == 2 and "REPEAT" in str(each[0]):
            kind, (_, most, inner) = each
            yield kind, most
            yield from repetitions(inner)
        elif isinstance(each, list | tuple | _parser.SubPattern):
            yield from repetitions(each)


@pytest.mark.parametrize("pattern", [redaction._PEM, *(shape for shape, _ in redaction._COMPILED)])
def test_no_shape_goes_back_over_what_may_be_long(pattern):
    found = set(repetitions(_parser.parse(pattern.pattern, pattern.flags & re.IGNORECASE)))

    assert found
    assert {str(kind) for kind, most in found if most > 50} <= {"POSSESSIVE_REPEAT"}


@pytest.mark.parametrize(
    "token",
    [
        JWT,
        JWT.rpartition(".")[0] + ".",
        new_api_token()[1].get_secret_value(),
        RefreshToken.new().text.get_secret_value(),
    ],
    ids=["access", "unsigned", "api", "refresh"],  # each process that tests has other tokens
)
def test_a_token_is_known_by_its_shape(token):
    told = Redaction().text(f"could not read {token}, sorry")

    assert token[8:] not in told
    assert told.endswith(", sorry")


@given(st.binary(min_size=32, max_size=32))
def test_32_random_bytes_in_base64_are_known_by_their_shape(secret):
    token = base64.urlsafe_b64encode(secret).decode().rstrip("=")
    # One in a thousand lacks a digit or one of the cases; it could be somebody's name.
    assume(re.search(r"\d", token) and re.search("[a-z]", token) and re.search("[A-Z]", token))

    for text in (token, f"{token}=", f"/verify {token}."):
        assert token not in Redaction().text(text)


@pytest.mark.parametrize(
    "text",
    [
        "TOKEN_KEYS: must be set in production.",
        "The job 4f2a of backfill was given up: TIMEOUT",
        "no symbol 'BTC/USDT' at binance; see https://docs.example/a:b",
        "error 0123456789abcdef at ['login']",
        "GET /graphql: 200 in 3.1 ms",
        "a digest: " + "0123456789abcdef" * 4,
        "design: 3, signed: yes, assign=4",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text):
    assert Redaction().text(text) == text


def test_known_secrets_are_found_wherever_they_stand_and_as_urls_write_them():
    redaction = Redaction(["p@ss word!", "short", "abcdefgh", "abcdefghijkl"])

    assert redaction.text("it said p@ss word! or p%40ss%20word%21") == "it said *** or ***"
    assert redaction.text("abcdefghijkl") == "***"
    assert redaction.text("short words stay") == "short words stay"


def test_settings_give_their_secrets_whole_and_in_parts():
    class Held(BaseModel):
        host: str = "a.host"
        database_url: SecretStr = SecretStr("postgresql://u:p%40ss-word@db/x?password=in-query")
        token_keys: SecretStr = SecretStr("first-key, second-key")
        smtp_url: SecretStr | None = None

    known = set(secrets_of(Held()))

    assert {"p%40ss-word", "p@ss-word", "in-query", "first-key", "second-key"} <= known
    assert "a.host" not in known


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "newPassword",
        "apiKey",
        "API_KEY",
        "x-api-key",
        "totp",
        "DATABASE_DSN",
        "apiSign",
    ],
)
def test_a_value_is_hidden_by_its_name(name):
    hidden = Redaction()(None, "", {"event": "x", name: SECRET, "in": [{name: {"a": SECRET}}]})

    assert is_secret(name)
    assert SECRET not in json.dumps(hidden)


@pytest.mark.parametrize(
    "name", ["request_id", "event", "monkey", "author", "symbol", "tokenless", "signal"]
)
def test_other_names_hide_nothing(name):
    assert Redaction()(None, "", {name: "told"}) == {name: "told"}


class Loud:
    def __str__(self) -> str:
        return f"password={SECRET}"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.just(NOW)
    | st.just(SecretStr(SECRET))
    | st.just(Loud()),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_whatever_is_logged_becomes_json_without_the_secret(value):
    line = orjson.dumps(Redaction()(None, "", {"event": "x", "value": value}))

    assert SECRET.encode() not in line


def test_a_value_has_a_bound_and_a_secret_across_it_is_not_left_in_half():
    text = "x" * (LONGEST // 2 - 5) + SECRET + "y" * LONGEST

    told = Redaction([SECRET]).text(text)

    assert len(told) < LONGEST + 10
    assert SECRET[:5] not in told


def test_what_refers_to_itself_ends():
    loop: list[object] = []
    loop.append(loop)

    assert Redaction()(None, "", {"event": "x", "loop": loop})["event"] == "x"
