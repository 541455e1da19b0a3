"""Access tokens: what counts, for how long, and every way to forge one."""

from __future__ import annotations

import base64
import json
import pickle
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from db.encryption import key_text, new_key
from market.clock import FixedClock
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.principal import Claims
from web.key_file import KeysAway
from web.tokens import LIFETIME_MS, JwtTokens, SigningKeys

AT = 1_763_641_815_500
USER, SESSION = UUID(int=7), UUID(int=8)
KEY = new_key()


def tokens(*keys: bytes, at: int = AT, **values) -> JwtTokens:
    return JwtTokens(keys or (KEY,), clock=FixedClock(at), **values)


def signed(made: JwtTokens | None = None) -> str:
    token = (made or tokens()).sign(user_id=USER, session_id=SESSION, version=3)
    return token.text.get_secret_value()


def parts(text: str) -> tuple[dict, dict]:
    return (
        jwt.get_unverified_header(text),
        jwt.decode(text, options={"verify_signature": False}),
    )


def forged(*, key: bytes = KEY, header: dict | None = None, **claims: object) -> str:
    """Return a token signed by *key* whose *claims* are other than they should be."""
    true_header, true_claims = parts(signed())
    changed = {name: value for name, value in (true_claims | claims).items() if value is not ...}
    return jwt.encode(
        changed,
        Ed25519PrivateKey.from_private_bytes(key),
        algorithm="EdDSA",
        headers={**true_header, **(header or {})},
    )


def test_a_token_says_who_by_which_session_and_until_when() -> None:
    made = tokens().sign(user_id=USER, session_id=SESSION, version=3)

    claims = tokens().read(made.text.get_secret_value())

    expires = (AT + LIFETIME_MS) // 1000 * 1000
    key_id = jwt.get_unverified_header(made.text.get_secret_value())["kid"]
    assert claims == Claims(USER, expires, session_id=SESSION, version=3, key_id=key_id)
    assert made.expires_at == expires


def test_the_helper_of_these_tests_forges_what_would_be_taken() -> None:
    assert tokens().read(forged()).user_id == USER


def test_a_token_counts_until_its_last_millisecond() -> None:
    expires = tokens().read(signed()).expires_at

    assert tokens(at=expires - 1).read(signed()).user_id == USER
    with pytest.raises(Unauthenticated):
        tokens(at=expires).read(signed())


def test_a_token_of_the_future_is_refused_beyond_what_clocks_differ() -> None:
    early = signed(tokens(at=AT + 5_000))

    assert tokens().read(early).user_id == USER
    with pytest.raises(Unauthenticated):
        tokens().read(signed(tokens(at=AT + 7_000)))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "another"},
        {"aud": "another"},
        {"aud": []},
        {"iss": ...},
        {"aud": ...},
        {"sub": ...},
        {"sid": ...},
        {"ver": ...},
        {"exp": ...},
        {"nbf": ...},
        {"iat": ...},
        {"exp": AT // 1000},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": 1e300},
        {"exp": 10**30},
        {"exp": 9_999_999_999.5},
        {"nbf": AT // 1000 + 60},
        {"iat": AT // 1000 + 60},
        {"nbf": -1},
        {"ver": "3"},
        {"ver": True},
        {"ver": None},
        {"sub": "somebody"},
        {"sub": 7},
        {"sub": {"$ne": None}},
        {"sid": ""},
        {"sid": ["a"]},
    ],
)
def test_a_token_with_such_claims_is_nobodys_although_the_key_is_right(claims) -> None:
    with pytest.raises(Unauthenticated) as refused:
        tokens().read(forged(**claims))

    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"kid": "0" * 16},
        {"kid": None},
        {"kid": 7},
        {"kid": ["x"]},
        {"kid": {}},
        {"kid": "../../token.keys"},
    ],
)
def test_a_token_with_such_a_header_is_nobodys(header) -> None:
    try:
        text = forged(header=header)
    except jwt.PyJWTError:
        text = raw({**parts(signed())[0], **header}, parts(signed())[1], b"x" * 64)

    with pytest.raises(Unauthenticated):
        tokens().read(text)


def raw(header: dict, claims: dict, signature: bytes) -> str:
    def encoded(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    return ".".join(
        [
            encoded(json.dumps(header).encode()),
            encoded(json.dumps(claims).encode()),
            encoded(signature),
        ]
    )


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "ES256", "RS256", "", None])
def test_a_token_does_not_choose_how_it_is_verified(algorithm) -> None:
    header, claims = parts(signed())

    for signature in (b"", b"x" * 64):
        with pytest.raises(Unauthenticated):
            tokens().read(raw({**header, "alg": algorithm}, claims, signature))


def test_our_public_key_is_no_shared_secret() -> None:
    header, claims = parts(signed())
    public = SigningKeys([KEY]).public[header["kid"]].public_bytes_raw()

    text = jwt.encode(claims, public, algorithm="HS256", headers={**header, "alg": "HS256"})

    with pytest.raises(Unauthenticated):
        tokens().read(text)


def test_a_token_of_another_key_is_refused_even_under_the_name_of_ours() -> None:
    with pytest.raises(Unauthenticated):
        tokens().read(forged(key=new_key()))


def test_a_changed_claim_or_signature_is_noticed() -> None:
    head, _, signature = signed().split(".")
    other = signed(tokens(at=AT + 1_000)).split(".")[1]

    with pytest.raises(Unauthenticated):
        tokens().read(f"{head}.{other}.{signature}")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    with pytest.raises(Unauthenticated):
        tokens().read(f"{head}.{signed().split('.')[1]}.{flipped}")


@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_whatever_is_no_token_is_unauthenticated_and_nothing_else(text: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens().read(text)


@given(header=st.dictionaries(st.text(), st.none() | st.integers() | st.text()), body=st.binary())
def test_whatever_looks_like_a_token_is_unauthenticated_and_nothing_else(header, body) -> None:
    parted = raw(header, {}, b"")
    forged_body = base64.urlsafe_b64encode(body).decode().rstrip("=")

    with pytest.raises(Unauthenticated):
        tokens().read(parted)
    with pytest.raises(Unauthenticated):
        tokens().read(f"{parted.split('.')[0]}.{forged_body}.{forged_body}")


def test_a_new_key_signs_and_those_before_it_still_count() -> None:
    new = new_key()
    old_token = signed(tokens(KEY))
    both = tokens(new, KEY)

    assert both.read(old_token).user_id == USER
    new_token = signed(both)
    assert tokens(new).read(new_token).user_id == USER
    with pytest.raises(Unauthenticated):
        tokens(KEY).read(new_token)
    with pytest.raises(Unauthenticated):
        tokens(new).read(old_token)


def test_keys_added_to_the_file_meanwhile_are_found_but_not_looked_for_at_every_token() -> None:
    new, keys, looks = new_key(), [KEY], []

    def reread():
        looks.append(1)
        return list(keys)

    clock = FixedClock(AT)
    running = JwtTokens([KEY], clock=clock, reread=reread)
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            running.read(forged(key=new_key(), header={"kid": uuid4().hex[:16]}))
    assert len(looks) == 1

    keys.insert(0, new)
    clock.at += 10_000
    text = signed(tokens(new, at=clock.at))

    assert running.read(text).user_id == USER


def test_a_key_taken_out_of_the_file_neither_counts_nor_signs_after_ten_seconds() -> None:
    stolen, new, clock = new_key(), new_key(), FixedClock(AT)
    keys = [stolen]
    running = JwtTokens(keys, clock=clock, reread=lambda: list(keys))
    old = signed(running)
    key_id = running.read(old).key_id
    keys[:] = [new]

    clock.at += 9_999
    assert running.trusts(key_id)
    clock.at += 1
    assert not running.trusts(key_id)
    with pytest.raises(Unauthenticated):
        running.read(old)
    assert tokens(new, at=clock.at).read(signed(running)).user_id == USER


def test_a_file_of_keys_that_cannot_be_read_for_now_signs_nobody_out() -> None:
    clock = FixedClock(AT)

    def away():
        raise KeysAway

    running = JwtTokens([KEY], clock=clock, reread=away)
    text = signed(running)
    clock.at += 60_000

    assert running.read(text).user_id == USER
    with pytest.raises(Unauthenticated):
        running.read(forged(key=new_key(), header={"kid": uuid4().hex[:16]}))


def test_keys_do_not_show_and_are_not_pickled() -> None:
    keys = SigningKeys([KEY])

    assert key_text(KEY) not in repr(keys)
    assert KEY.hex() not in repr(keys)
    with pytest.raises(TypeError):
        pickle.dumps(keys)
    made = tokens().sign(user_id=USER, session_id=SESSION, version=3)
    assert made.text.get_secret_value() not in repr(made)
