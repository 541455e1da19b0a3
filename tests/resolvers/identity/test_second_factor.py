"""One-time codes: they count once, in order, and until they are turned off."""

from __future__ import annotations

import asyncio

import pyotp
import pytest
from pydantic import SecretStr
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from db.accounts.models.identity import TotpRow
from db.accounts.permissions import Scope
from db.accounts.repositories.users import User
from db.encryption import SealBroken
from resolvers.identity.administration import turn_off_codes
from resolvers.identity.api_tokens import create_api_token
from resolvers.identity.failures import (
    CodeNeeded,
    LoginFailed,
    SecondFactorOff,
    SecondFactorOn,
    TooManyCodes,
    Unauthenticated,
    WrongCode,
    WrongPassword,
)
from resolvers.identity.principal import Origin, SignedIn
from resolvers.identity.second_factor import (
    MOST_WRONG,
    RECOVERY_CODES,
    SecondFactorState,
    confirm,
    enrol,
    state_of,
    turn_off,
)
from resolvers.identity.signing_in import login, refresh
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


async def test_the_owner_is_told_when_codes_are_turned_on_or_off_and_not_before(
    stage: Stage,
) -> None:
    user, phone, codes = await protected(stage)
    principal = await stage.shown(await stage.login(user, code=phone.code()))
    with pytest.raises(WrongCode):
        await turn_off(stage.identity, principal, PASSWORD, "12", origin=ORIGIN)
    with pytest.raises(SecondFactorOn):
        await enrol(stage.identity, principal, PASSWORD, origin=ORIGIN)
    before = len(stage.mailbox.mails)

    code = codes[0].get_secret_value()
    await turn_off(stage.identity, principal, PASSWORD, code, origin=ORIGIN)

    assert before == 1
    assert [(mail.to, mail.subject) for mail in stage.mailbox.mails] == [
        (user.email, "One-time codes are on"),
        (user.email, "One-time codes are off"),
    ]


async def test_codes_turned_off_for_somebody_who_lost_them_let_their_password_in_again(
    stage: Stage,
) -> None:
    user, phone, _ = await protected(stage)
    signed_in = await stage.login(user, code=phone.code())
    principal = await stage.shown(signed_in)

    await turn_off_codes(stage.identity, None, user.username, origin=Origin())

    with pytest.raises(Unauthenticated):
        await stage.identity.check(principal.claims)
    with pytest.raises(Unauthenticated):
        await refresh(stage.identity, signed_in.refresh, origin=ORIGIN)
    again = await stage.shown(await stage.login(user))
    assert await state_of(stage.identity, again) == SecondFactorState(
        is_on=False, recovery_codes_left=None
    )
    assert [(mail.to, mail.subject) for mail in stage.mailbox.mails][1:] == [
        (user.email, "One-time codes are off")
    ]
    async with stage.identity.accounts.transaction() as transaction:
        page = await transaction.audit.page(first=9, user_id=user.id)
    (line,) = [line for line in page if line.action == "second-factor.off"]
    assert (line.result, line.actor_id) == ("ok", None)


async def test_codes_that_are_not_on_are_not_turned_off(stage: Stage) -> None:
    user = await stage.member()
    signed_in = await stage.login(user)
    await enrol(stage.identity, await stage.shown(signed_in), PASSWORD, origin=ORIGIN)

    with pytest.raises(SecondFactorOff):
        await turn_off_codes(stage.identity, None, user.username, origin=Origin())

    assert (await stage.shown(signed_in)).user_id == user.id
    assert stage.mailbox.mails == []


async def test_the_log_tells_of_those_who_guess_with_a_token_of_another(stage: Stage) -> None:
    user, phone, _ = await protected(stage)
    principal = await stage.shown(await stage.login(user, code=phone.code()))
    wrong = SecretStr("wrong horse")

    with pytest.raises(WrongPassword):
        await enrol(stage.identity, principal, wrong, origin=ORIGIN)
    with pytest.raises(WrongPassword):
        await turn_off(stage.identity, principal, wrong, phone.code(), origin=ORIGIN)
    with pytest.raises(WrongCode):
        await turn_off(stage.identity, principal, PASSWORD, "12", origin=ORIGIN)

    assert (await stage.lines(user))[-3:] == [
        ("second-factor.enrol", "WRONG_PASSWORD"),
        ("second-factor.off", "WRONG_PASSWORD"),
        ("second-factor.off", "WRONG_CODE"),
    ]


async def test_one_sees_how_many_recovery_codes_are_left(stage: Stage) -> None:
    user, _, codes = await protected(stage)
    unprotected = await stage.principal(await stage.member())
    principal = await stage.shown(await stage.login(user, code=codes[0].get_secret_value()))

    assert await state_of(stage.identity, principal) == SecondFactorState(
        is_on=True, recovery_codes_left=RECOVERY_CODES - 1
    )
    assert await state_of(stage.identity, unprotected) == SecondFactorState(
        is_on=False, recovery_codes_left=None
    )


async def broken_secret(engine: AsyncEngine, user: User) -> None:
    """Make what an authenticator's codes are checked by one that does not open."""
    async with engine.begin() as connection:
        await connection.execute(
            update(TotpRow).where(TotpRow.user_id == user.id).values(secret_ciphertext=b"no seal")
        )


async def test_a_secret_that_does_not_open_is_in_the_log_and_recovery_codes_go_on(
    stage: Stage, accounts_engine: AsyncEngine
) -> None:
    user, phone, codes = await protected(stage)
    await broken_secret(accounts_engine, user)

    with pytest.raises(SealBroken, match=str(user.id)):
        await stage.login(user, code=phone.code())
    logged = (await stage.lines(user))[-1]
    signed_in = await stage.login(user, code=codes[0].get_secret_value())

    assert logged == ("login", "SEAL_BROKEN")
    principal = await stage.shown(signed_in)
    with pytest.raises(SealBroken):
        await turn_off(stage.identity, principal, PASSWORD, phone.code(), origin=ORIGIN)
    assert (await stage.lines(user))[-1] == ("second-factor.off", "SEAL_BROKEN")
    code = codes[1].get_secret_value()
    await turn_off(stage.identity, principal, PASSWORD, code, origin=ORIGIN)
    assert isinstance(await stage.login(user), SignedIn)


async def test_after_five_wrong_codes_only_recovery_codes_count_for_a_while_and_the_owner_is_told(
    stage: Stage,
) -> None:
    user, phone, codes = await protected(stage)
    names = (user.username, user.email, user.username.upper())
    for number in range(MOST_WRONG):
        with pytest.raises(WrongCode):
            await login(
                stage.identity, names[number % 3], PASSWORD, code=f"no {number}", origin=ORIGIN
            )
        stage.later(30)

    with pytest.raises(TooManyCodes) as refused:
        await stage.login(user, code=phone.code())
    await stage.login(user, code=codes[0].get_secret_value())

    assert [mail.subject for mail in stage.mailbox.mails][1:] == ["Somebody guesses at your codes"]
    stage.later(refused.value.retry_after)
    await stage.login(user, code=phone.code())


async def test_wrong_codes_count_together_wherever_they_are_given(stage: Stage) -> None:
    user, phone, _ = await protected(stage)
    principal = await stage.shown(await stage.login(user, code=phone.code()))
    stage.later(30)
    for number in range(MOST_WRONG):
        with pytest.raises(WrongCode):
            await turn_off(stage.identity, principal, PASSWORD, f"no {number}", origin=ORIGIN)

    with pytest.raises(TooManyCodes):
        await turn_off(stage.identity, principal, PASSWORD, phone.code(), origin=ORIGIN)
    with pytest.raises(TooManyCodes):
        await stage.login(user, code=phone.code())


async def test_an_api_token_takes_a_code_where_codes_are_on(stage: Stage) -> None:
    user, phone, _ = await protected(stage)
    principal = await stage.shown(await stage.login(user, code=phone.code()))
    stage.later(30)

    async def made(code: str | None):
        return await create_api_token(
            stage.identity,
            principal,
            name="program",
            scopes=[Scope.TRADE],
            password=PASSWORD,
            code=code,
            origin=ORIGIN,
        )

    with pytest.raises(CodeNeeded):
        await made(None)
    with pytest.raises(WrongCode):
        await made("no code")
    assert (await made(phone.code())).token.user_id == user.id
