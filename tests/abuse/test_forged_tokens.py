"""Tokens that nobody was given open nothing, whatever carries them.

The server's own key is known here, so that nothing but the forged part can be what is refused.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import OKPAlgorithm

from db.accounts.permissions import Role
from db.encryption import new_key
from tests.abuse.target import Target
from tests.abuse.transports import TRANSPORTS

PUBLIC = "{ markets { name } }"
ME = "{ me { username } }"


class Forge:
    """Makes tokens out of a good one, under *key*, the server's own, unless told otherwise."""

    def __init__(self, good: str, victim: str, key: bytes) -> None:
        self.good = good
        self.header: dict[str, Any] = jwt.get_unverified_header(good)
        self.claims = claims_of(good)
        self.victim = claims_of(victim)
        self.ours = Ed25519PrivateKey.from_private_bytes(key)
        self.theirs = Ed25519PrivateKey.from_private_bytes(new_key())

    def signed(
        self,
        claims: dict[str, Any] | None = None,
        header: dict[str, Any] | None = None,
        *,
        key: Ed25519PrivateKey | None = None,
        without: str | None = None,
    ) -> str:
        """Return a token with other *claims* and *header*, signed rightly by *key*."""
        said = {n: v for n, v in (self.claims | (claims or {})).items() if n != without}
        first = f"{part(self.header | (header or {}))}.{part(said)}"
        return f"{first}.{encoded((key or self.ours).sign(first.encode()))}"

    def symmetric(self, secret: bytes) -> str:
        """Return a token that takes *secret*, which is public, for a shared one."""
        first = f"{part(self.header | {'alg': 'HS256'})}.{part(self.claims)}"
        hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        return f"{first}.{encoded(hmac.sign(first.encode(), secret))}"

    def unsigned(self, algorithm: object) -> str:
        return f"{part(self.header | {'alg': algorithm})}.{part(self.claims)}."

    def tampered(self) -> str:
        head, _, signature = self.good.split(".")
        return f"{head}.{part(self.claims | {'sub': self.victim['sub']})}.{signature}"

    @property
    def public(self) -> Any:
        return self.ours.public_key()


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def part(value: object) -> str:
    return encoded(json.dumps(value).encode())


def soon(seconds: int) -> int:
    return int(time.time()) + seconds


def own_key(forge: Forge) -> dict[str, Any]:
    """Return the forger's key as a header would bring it along."""
    return {"jwk": json.loads(OKPAlgorithm.to_jwk(forge.theirs.public_key()))}


FORGERIES: dict[str, Callable[[Forge], str]] = {
    "no algorithm": lambda f: f.unsigned("none"),
    "no algorithm, in capitals": lambda f: f.unsigned("NONE"),
    "no algorithm, mixed": lambda f: f.unsigned("nOnE"),
    "an empty algorithm": lambda f: f.unsigned(""),
    "a null algorithm": lambda f: f.unsigned(None),
    "several algorithms": lambda f: f.unsigned(["none", "EdDSA"]),
    "our algorithm, unsigned": lambda f: f.unsigned("EdDSA"),
    "public key as secret": lambda f: f.symmetric(f.public.public_bytes_raw()),
    "public key in PEM as secret": lambda f: f.symmetric(
        f.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ),
    "public key in DER as secret": lambda f: f.symmetric(
        f.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ),
    "another key": lambda f: f.signed(key=f.theirs),
    "another key, brought along": lambda f: f.signed(header=own_key(f), key=f.theirs),
    "another key, at a URL": lambda f: f.signed(
        header={"jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/cert"}, key=f.theirs
    ),
    "another key, as a certificate": lambda f: f.signed(header={"x5c": ["MIIB"]}, key=f.theirs),
    "another key, named": lambda f: f.signed(header={"kid": "0" * 16}, key=f.theirs),
    "a path as key": lambda f: f.signed(header={"kid": "../../../../dev/null"}, key=f.theirs),
    "a URL as key": lambda f: f.signed(header={"kid": "http://127.0.0.1:1/key"}, key=f.theirs),
    "SQL as key": lambda f: f.signed(header={"kid": "' UNION SELECT 'x'; --"}, key=f.theirs),
    "NUL as key": lambda f: f.signed(header={"kid": f"{f.header['kid']}\x00"}),
    "an object as key": lambda f: f.signed(header={"kid": {"$ne": 1}}),
    "no key": lambda f: f.signed(header={"kid": None}),
    "another audience": lambda f: f.signed({"aud": "another"}),
    "another issuer": lambda f: f.signed({"iss": "https://another.example"}),
    "another kind": lambda f: f.signed(header={"typ": "rt+jwt"}),
    "a kind of all": lambda f: f.signed(header={"typ": "JWT"}),
    "over": lambda f: f.signed({"exp": soon(-1)}),
    "without an end": lambda f: f.signed(without="exp"),
    "an endless end": lambda f: f.signed({"exp": 10**40}),
    "not begun": lambda f: f.signed({"nbf": soon(600)}),
    "of the future": lambda f: f.signed({"iat": soon(600)}),
    "another's name on it": lambda f: f.signed({"sub": f.victim["sub"]}),
    "another's session on it": lambda f: f.signed({"sid": f.victim["sid"]}),
    "another version": lambda f: f.signed({"ver": f.claims["ver"] + 1}),
    "changed": lambda f: f.tampered(),
    "with more behind it": lambda f: f"{f.good}.{f.good}",
    "large": lambda f: f.signed({"more": "x" * 8_000}),
    "huge": lambda _: "x" * 40_000,
    "a refresh token": lambda _: "bgr_" + "A" * 64,
}


@pytest.fixture(scope="module")
def forge(production: Target) -> Forge:
    good = asyncio.run(production.session(Role.USER))
    victim = asyncio.run(production.session(Role.ADMIN))
    return Forge(good, victim, production.token_key)


async def test_what_the_forge_makes_without_a_change_counts(target: Target, forge: Forge) -> None:
    answers = [await over(target, {"query": ME}, forge.signed()) for over in TRANSPORTS]

    assert len({answer["data"]["me"]["username"] for answer in answers}) == 1


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_token_opens_nothing_however_it_comes(
    target: Target, forge: Forge, forgery: str
) -> None:
    forged = FORGERIES[forgery](forge)

    *answers, closed = [await over(target, {"query": PUBLIC}, forged) for over in TRANSPORTS]

    for answer in answers:
        assert answer.keys() == {"errors"}
        assert [error["extensions"] for error in answer["errors"]] == [{"code": "UNAUTHENTICATED"}]
    assert closed == {"closed": 4403}
