"""Register, prove an address, be invited: once each, and without telling who has an account."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from pydantic import SecretStr

from db.accounts.accounts import Accounts
from db.accounts.errors import NameTaken
from db.accounts.permissions import Role
from market.errors import BadInput
from resolvers.identity.addresses import request_verification, verify_email
from resolvers.identity.administration import invite
from resolvers.identity.changing_passwords import reset_password
from resolvers.identity.failures import (
    EmailNotVerified,
    InvitationInvalid,
    RegistrationClosed,
    TokenInvalid,
    WeakPassword,
)
from resolvers.identity.housekeeping import prune
from resolvers.identity.registering import Wanted, create_admin, register
from resolvers.identity.rules import Registration, Rules
from resolvers.identity.signing_in import login
from tests.accounts import ORIGIN, PASSWORD, Stage, staged


def wanted(**values) -> Wanted:
    name = f"n{uuid4().hex[:12]}"
    return Wanted(
        **{"username": name, "email": f"{name}@example.com", "password": PASSWORD} | values
    )


async def found(stage: Stage, name: str):
    async with stage.identity.accounts.transaction() as transaction:
        return await transaction.users.named(name)


async def test_who_registers_can_sign_in_once_the_address_is_proved(stage: Stage) -> None:
    new = wanted()
    await register(stage.identity, new, origin=ORIGIN)
    with pytest.raises(EmailNotVerified):
        await login(stage.identity, new.username, PASSWORD, code=None, origin=ORIGIN)

    await verify_email(stage.identity, stage.mailbox.token_for(new.email), origin=ORIGIN)

    signed_in = await login(stage.identity, new.username, PASSWORD, code=None, origin=ORIGIN)
    assert (await stage.shown(signed_in)).role is Role.USER


async def test_the_link_in_a_mail_works_once_and_for_two_days(stage: Stage) -> None:
    first, second = wanted(), wanted()
    await register(stage.identity, first, origin=ORIGIN)
    token = stage.mailbox.token_for(first.email)
    await verify_email(stage.identity, token, origin=ORIGIN)
    with pytest.raises(TokenInvalid):
        await verify_email(stage.identity, token, origin=ORIGIN)

    await register(stage.identity, second, origin=ORIGIN)
    stage.later(2 * 86_400)

    with pytest.raises(TokenInvalid):
        await verify_email(stage.identity, stage.mailbox.token_for(second.email), origin=ORIGIN)


async def test_an_address_that_has_an_account_looks_new_to_all_but_its_owner(stage: Stage) -> None:
    user = await stage.member()
    new = wanted(email=user.email.upper())
    before = stage.identity.passwords.hashed

    await register(stage.identity, new, origin=ORIGIN)

    assert stage.identity.passwords.hashed == before + 1
    assert [mail.subject for mail in stage.mailbox.mails] == ["You have an account already"]
    assert await found(stage, new.username) is None


async def test_the_owner_of_an_address_is_told_once_an_hour(stage: Stage) -> None:
    user = await stage.member()
    for _ in range(3):
        await register(stage.identity, wanted(email=user.email), origin=ORIGIN)
    assert len(stage.mailbox.mails) == 1

    stage.later(3_600)
    await register(stage.identity, wanted(email=user.email), origin=ORIGIN)

    assert len(stage.mailbox.mails) == 2


async def test_no_password_is_hashed_for_what_is_refused_anyway(stage: Stage) -> None:
    user = await stage.member()
    made_up = SecretStr("made-up")

    with pytest.raises(NameTaken):
        await register(stage.identity, wanted(username=user.username), origin=ORIGIN)
    with pytest.raises(InvitationInvalid):
        await register(stage.identity, wanted(invitation=made_up), origin=ORIGIN)
    with pytest.raises(TokenInvalid):
        await reset_password(stage.identity, made_up, PASSWORD, origin=ORIGIN)

    assert stage.identity.passwords.hashed == 0


async def test_a_username_is_taken_in_any_case(stage: Stage) -> None:
    user = await stage.member()

    with pytest.raises(NameTaken) as taken:
        await register(stage.identity, wanted(username=user.username.upper()), origin=ORIGIN)

    assert taken.value.field == "username"
    assert stage.mailbox.mails == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", "ab"),
        ("username", "-dash"),
        ("username", "dot."),
        ("username", "two words"),
        ("username", "x" * 33),
        ("username", "аdmin"),  # noqa: RUF001 - a Cyrillic a
        ("username", "a@b"),
        ("username", "nul\x00nul"),
        ("email", "nobody"),
        ("email", "a..b@example.com"),
        ("email", ".a@example.com"),
        ("email", "a.@example.com"),
        ("email", '"a b"@example.com'),
        ("email", "<a@example.com>"),
        ("email", "a@b"),
        ("email", "a b@example.com"),
        ("email", "a@example.com\nBcc: all@example.com"),
        ("email", "mıke@example.org"),  # noqa: RUF001 - a dotless i
        ("email", f"{'x' * 65}@example.com"),
        ("email", f"a@{'x' * 250}.com"),
        ("password", "short"),
        ("password", "aaaaaaaaaaaa"),
        ("password", "x" * 201),
    ],
)
async def test_what_cannot_be_used_is_refused_by_field_and_a_password_is_not_quoted(
    stage: Stage, field: str, value: str
) -> None:
    new = wanted(**{field: SecretStr(value) if field == "password" else value})

    with pytest.raises(BadInput) as refused:
        await register(stage.identity, new, origin=ORIGIN)

    assert refused.value.field == field
    if field == "password":
        assert value not in str(refused.value)


async def test_a_password_is_not_ones_own_name(stage: Stage) -> None:
    new = wanted()

    for name in (new.username.upper(), new.email):
        with pytest.raises(WeakPassword):
            await register(
                stage.identity,
                wanted(username=new.username, email=new.email, password=SecretStr(name)),
                origin=ORIGIN,
            )


async def test_another_mail_is_sent_on_request_but_not_twice_in_a_minute(stage: Stage) -> None:
    new = wanted()
    await register(stage.identity, new, origin=ORIGIN)
    await request_verification(stage.identity, new.email, origin=ORIGIN)
    await stage.done()
    assert len(stage.mailbox.mails) == 1

    stage.later(60)
    await request_verification(stage.identity, new.email, origin=ORIGIN)
    await request_verification(stage.identity, "stranger@example.com", origin=ORIGIN)
    await stage.done()

    assert len(stage.mailbox.mails) == 2
    await verify_email(stage.identity, stage.mailbox.token_for(new.email), origin=ORIGIN)


async def test_a_closed_server_takes_nobody(accounts: Accounts) -> None:
    async with staged(accounts, rules=Rules(registration=Registration.CLOSED)) as stage:
        with pytest.raises(RegistrationClosed):
            await register(stage.identity, wanted(), origin=ORIGIN)


async def test_an_invitation_lets_one_in_once_with_its_role_and_proves_its_address(
    accounts: Accounts,
) -> None:
    async with staged(accounts, rules=Rules(registration=Registration.INVITATION)) as stage:
        new = wanted()
        with pytest.raises(InvitationInvalid):
            await register(stage.identity, new, origin=ORIGIN)
        token = await invite(
            stage.identity, None, role=Role.READ_ONLY, email=new.email, origin=ORIGIN
        )
        with pytest.raises(InvitationInvalid):
            await register(stage.identity, wanted(invitation=token), origin=ORIGIN)
        invited = wanted(username=new.username, email=new.email, invitation=token)

        await register(stage.identity, invited, origin=ORIGIN)

        signed_in = await login(stage.identity, new.email, PASSWORD, code=None, origin=ORIGIN)
        assert (await stage.shown(signed_in)).role is Role.READ_ONLY
        with pytest.raises(InvitationInvalid):
            await register(stage.identity, wanted(invitation=token), origin=ORIGIN)


async def test_of_several_who_use_one_invitation_at_once_one_gets_in(accounts: Accounts) -> None:
    async with staged(accounts, rules=Rules(registration=Registration.INVITATION)) as stage:
        token = await invite(stage.identity, None, role=Role.USER, email=None, origin=ORIGIN)

        outcomes = await asyncio.gather(
            *(register(stage.identity, wanted(invitation=token), origin=ORIGIN) for _ in range(5)),
            return_exceptions=True,
        )

        assert sum(isinstance(each, InvitationInvalid) for each in outcomes) == 4
        assert len(stage.mailbox.mails) == 1


async def test_of_several_who_want_one_name_at_once_one_gets_it(stage: Stage) -> None:
    name = wanted().username

    outcomes = await asyncio.gather(
        *(
            register(stage.identity, wanted(username=spelled), origin=ORIGIN)
            for spelled in (name, name.upper(), name.title(), name)
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(each, NameTaken) for each in outcomes) == 3
    assert len(stage.mailbox.mails) == 1


async def test_an_invitation_is_not_used_up_by_a_registration_that_failed(
    accounts: Accounts,
) -> None:
    async with staged(accounts, rules=Rules(registration=Registration.INVITATION)) as stage:
        user = await stage.member()
        token = await invite(stage.identity, None, role=Role.USER, email=None, origin=ORIGIN)
        with pytest.raises(NameTaken):
            await register(
                stage.identity, wanted(username=user.username, invitation=token), origin=ORIGIN
            )
        await register(stage.identity, wanted(email=user.email, invitation=token), origin=ORIGIN)
        new = wanted(invitation=token)

        await register(stage.identity, new, origin=ORIGIN)

        assert await found(stage, new.username) is not None


async def test_the_first_admin_signs_in_without_a_mail(stage: Stage) -> None:
    new = wanted()

    admin = await create_admin(stage.identity, new)

    assert (await stage.principal(admin)).role is Role.ADMIN
    assert stage.mailbox.mails == []


async def test_who_never_proved_their_address_is_gone_after_a_week(stage: Stage) -> None:
    new = wanted()
    await register(stage.identity, new, origin=ORIGIN)
    stage.later(6 * 86_400)
    await prune(stage.identity)
    assert await found(stage, new.username) is not None

    stage.later(86_401)
    await prune(stage.identity)

    assert await found(stage, new.username) is None


async def test_of_who_never_proved_their_address_no_address_is_kept(stage: Stage) -> None:
    new = wanted()
    await register(stage.identity, new, origin=ORIGIN)
    user = await found(stage, new.username)
    stage.later(7 * 86_400 + 1)

    await prune(stage.identity)

    async with stage.identity.accounts.transaction() as transaction:
        (line,) = await transaction.audit.page(first=9, user_id=user.id)
    assert (line.action, line.address) == ("register", None)
