"""Encryption at rest: opens for its own row and keys only, and shows nothing."""

from __future__ import annotations

import pickle
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from db.encryption import (
    KeyRing,
    SealBroken,
    Sealed,
    UnknownEncryptionKey,
    WeakKey,
    Wrapped,
    key_id_of,
    key_text,
    keys_in,
    new_key,
)

OWNER, ROW = UUID(int=1), UUID(int=2)
SECRETS = {"key": SecretStr("venue-key-1234"), "secret": SecretStr("venue-secret-5678")}


@given(texts=st.dictionaries(st.sampled_from(["key", "secret", "aux"]), st.text(max_size=300)))
def test_what_is_sealed_opens_as_it_was(texts: dict[str, str]) -> None:
    ring = KeyRing([new_key()])
    try:
        [text.encode() for text in texts.values()]
    except UnicodeEncodeError:
        return

    sealed = ring.seal({k: SecretStr(v) for k, v in texts.items()}, owner=OWNER, row=ROW)

    opened = ring.open(sealed, owner=OWNER, row=ROW)
    assert {name: value.get_secret_value() for name, value in opened.items()} == texts


def test_it_opens_for_its_own_user_and_row_only() -> None:
    ring = KeyRing([new_key()])
    sealed = ring.seal(SECRETS, owner=OWNER, row=ROW)

    for owner, row in ((uuid4(), ROW), (OWNER, uuid4()), (ROW, OWNER)):
        with pytest.raises(SealBroken):
            ring.open(sealed, owner=owner, row=row)


def test_fields_cannot_be_exchanged() -> None:
    ring = KeyRing([new_key()])
    sealed = ring.seal(SECRETS, owner=OWNER, row=ROW)
    swapped = {"key": sealed.fields["secret"], "secret": sealed.fields["key"]}

    with pytest.raises(SealBroken):
        ring.open(replace(sealed, fields=swapped), owner=OWNER, row=ROW)


def test_every_changed_byte_is_noticed() -> None:
    ring = KeyRing([new_key()])
    sealed = ring.seal(SECRETS, owner=OWNER, row=ROW)

    def flipped(whole: bytes, at: int) -> bytes:
        return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]

    whole = sealed.fields["key"]
    for at in range(len(whole)):
        changed = Sealed(sealed.wrapped, {"key": flipped(whole, at)})
        with pytest.raises(SealBroken):
            ring.open(changed, owner=OWNER, row=ROW)
    key = sealed.wrapped.data_key
    for at in range(len(key)):
        wrapped = Wrapped(sealed.wrapped.key_id, flipped(key, at))
        with pytest.raises(SealBroken):
            ring.open(Sealed(wrapped, sealed.fields), owner=OWNER, row=ROW)
    for short in (b"", whole[:1], whole[:13], whole[:20]):
        with pytest.raises(SealBroken):
            ring.open(Sealed(sealed.wrapped, {"key": short}), owner=OWNER, row=ROW)


def test_the_same_secret_never_looks_the_same() -> None:
    ring = KeyRing([new_key()])

    first, second = (ring.seal(SECRETS, owner=OWNER, row=ROW) for _ in range(2))

    assert first.fields["key"] != second.fields["key"]
    assert first.wrapped.data_key != second.wrapped.data_key


def test_an_old_key_still_opens_and_rewrapping_leaves_the_fields_alone() -> None:
    old, new = new_key(), new_key()
    sealed = KeyRing([old]).seal(SECRETS, owner=OWNER, row=ROW)
    both = KeyRing([new, old])
    assert both.open(sealed, owner=OWNER, row=ROW) == SECRETS

    wrapped = both.rewrap(sealed.wrapped, owner=OWNER, row=ROW)

    assert wrapped.key_id == key_id_of(new)
    alone = KeyRing([new])
    assert alone.open(replace(sealed, wrapped=wrapped), owner=OWNER, row=ROW) == SECRETS
    with pytest.raises(UnknownEncryptionKey, match=key_id_of(old)):
        alone.open(sealed, owner=OWNER, row=ROW)


def test_keys_that_were_added_meanwhile_are_read_again_when_a_row_needs_them() -> None:
    old, new = new_key(), new_key()
    keys = [old]
    running = KeyRing(keys, reread=lambda: keys)
    keys.insert(0, new)
    sealed = KeyRing(keys).seal(SECRETS, owner=OWNER, row=ROW)

    assert running.open(sealed, owner=OWNER, row=ROW) == SECRETS
    assert running.newest == key_id_of(new)


def test_nothing_new_goes_under_an_old_key_once_a_newer_one_is_there() -> None:
    old, new = new_key(), new_key()
    keys = [old]
    running = KeyRing(keys, reread=lambda: keys)
    keys.insert(0, new)

    sealed = running.seal(SECRETS, owner=OWNER, row=ROW)

    assert sealed.wrapped.key_id == key_id_of(new)


def test_neither_keys_nor_secrets_show_and_a_ring_is_not_pickled() -> None:
    key = new_key()
    ring = KeyRing([key])
    sealed = ring.seal(SECRETS, owner=OWNER, row=ROW)

    shown = f"{ring!r} {sealed!r} {vars(ring)!r} {ring.open(sealed, owner=OWNER, row=ROW)!r}"

    assert key_text(key) not in shown
    assert repr(key) not in shown
    assert not any(secret.get_secret_value() in shown for secret in SECRETS.values())
    with pytest.raises(TypeError):
        pickle.dumps(ring)


@pytest.mark.parametrize(
    "text",
    ["short", "A" * 43 + "=", "-" * 44, key_text(b"0123456789abcdef" * 2)[:-2], "é" * 44],
)
def test_a_weak_key_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(WeakKey) as refused:
        keys_in(text)

    assert text not in str(refused.value)


def test_a_key_listed_twice_is_refused() -> None:
    text = key_text(new_key())

    with pytest.raises(WeakKey):
        keys_in(f"{text},{text}")


def test_keys_are_listed_with_commas_or_lines_in_either_base64() -> None:
    keys = (new_key(), new_key())
    text = f"{key_text(keys[0])},\n{key_text(keys[1]).replace('-', '+').replace('_', '/')}\n"

    assert keys_in(text) == keys
