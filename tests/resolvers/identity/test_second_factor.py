"""One-time codes: they count once, in order, and until they are turned off."""

from __future__ import annotations

import asyncio

import pyotp
import pytest
from pydantic import SecretStr

from resolvers.identity.failures import (
    CodeNeeded,
    LoginFailed,
    SecondFactorOn,
    WrongCode,
    WrongPassword,
)
from resolvers.identity.principal import SignedIn
from resolvers.identity.second_factor import RECOVERY_CODES, confirm, enrol, turn_off
from resolvers.identity.signing_in import login
from tests.accounts import ORIGIN, PASSWORD, Stage


class Phone:
    """An authenticator, on the clock of the test."""

    def __init__(self, stage: Stage, secret: SecretStr) -> None:
        self._stage = stage
        self._totp = pyotp.TOTP(secret.get_secret_value())

    def code(self, *, off: int = 0) -> str:
        return self._totp.at(self._stage.clock.at // 1000 + off)


async def protected(stage: Stage):
    """Return a user with codes on, their phone, and their recovery codes."""
    user = await stage.member()
    principal = await stage.principal(user)
    enrolment = await enrol(stage.identity, principal, PASSWORD, origin=ORIGIN)
    phone = Phone(stage, enrolment.secret)
    codes = await confirm(stage.identity, principal, phone.code(), origin=ORIGIN)
    stage.later(30)
    return user, phone, codes


async def test_a_login_needs_a_code_once_they_are_on(stage: Stage) -> None:
    user, phone, _ = await protected(stage)

    with pytest.raises(CodeNeeded):
        await stage.login(user)
    with pytest.raises(WrongCode):
        await stage.login(user, code="000000" if phone.code() != "000000" else "111111")

    assert (await stage.login(user, code=phone.code())).user_id == user.id


async def test_without_the_password_nobody_learns_that_codes_are_on(stage: Stage) -> None:
    user, phone, _ = await protected(stage)

    with pytest.raises(LoginFailed):
        await login(
            stage.identity, user.username, SecretStr("wrong"), code=phone.code(), origin=ORIGIN
        )


async def test_a_code_counts_once_even_at_the_same_time(stage: Stage) -> None:
    user, phone, _ = await protected(stage)
    code = phone.code()

    tries = await asyncio.gather(
        *(stage.login(user, code=code) for _ in range(4)), return_exceptions=True
    )

    assert sorted(type(each).__name__ for each in tries) == ["SignedIn"] + ["WrongCode"] * 3


async def test_the_code_that_turned_them_on_does_not_sign_in(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    enrolment = await enrol(stage.identity, principal, PASSWORD, origin=ORIGIN)
    code = Phone(stage, enrolment.secret).code()
    await confirm(stage.identity, principal, code, origin=ORIGIN)

    with pytest.raises(WrongCode):
        await stage.login(user, code=code)


async def test_a_clock_half_a_minute_wrong_is_borne_and_more_is_not(stage: Stage) -> None:
    user, phone, _ = await protected(stage)
    stage.later(300)

    for off in (-60, 60):
        with pytest.raises(WrongCode):
            await stage.login(user, code=phone.code(off=off))
    for off in (-30, 30):
        await stage.login(user, code=phone.code(off=off))
    with pytest.raises(WrongCode):
        await stage.login(user, code=phone.code())


async def test_each_recovery_code_stands_in_once_however_it_is_typed(stage: Stage) -> None:
    user, _, codes = await protected(stage)
    assert len({code.get_secret_value() for code in codes}) == RECOVERY_CODES

    typed = codes[3].get_secret_value().upper().replace("-", " ")
    signed_in = await stage.login(user, code=typed)

    assert isinstance(signed_in, SignedIn)
    with pytest.raises(WrongCode):
        await stage.login(user, code=typed)
    await stage.login(user, code=codes[4].get_secret_value())


async def test_what_was_not_confirmed_is_not_asked_for_and_can_be_begun_again(
    stage: Stage,
) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    first = await enrol(stage.identity, principal, PASSWORD, origin=ORIGIN)
    await stage.login(user)
    second = await enrol(stage.identity, principal, PASSWORD, origin=ORIGIN)

    with pytest.raises(WrongCode):
        await confirm(stage.identity, principal, Phone(stage, first.secret).code(), origin=ORIGIN)
    await confirm(stage.identity, principal, Phone(stage, second.secret).code(), origin=ORIGIN)
    with pytest.raises(SecondFactorOn):
        await enrol(stage.identity, principal, PASSWORD, origin=ORIGIN)


async def test_turning_them_off_takes_password_and_code(stage: Stage) -> None:
    user, phone, _ = await protected(stage)
    principal = await stage.shown(await stage.login(user, code=phone.code()))
    stage.later(30)

    with pytest.raises(WrongPassword):
        await turn_off(
            stage.identity, principal, SecretStr("wrong horse"), phone.code(), origin=ORIGIN
        )
    with pytest.raises(WrongCode):
        await turn_off(stage.identity, principal, PASSWORD, "12", origin=ORIGIN)
    await turn_off(stage.identity, principal, PASSWORD, phone.code(), origin=ORIGIN)

    await stage.login(user)
