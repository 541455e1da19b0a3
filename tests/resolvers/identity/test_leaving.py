"""Export and deletion: everything of one's own, nothing secret, nothing left but a faceless log."""

from __future__ import annotations

import asyncio
import json

import pyotp
import pytest
from pydantic import SecretStr
from sqlalchemy import func, inspect, select
from sqlalchemy.ext.asyncio import AsyncEngine

from db.accounts.errors import NotFound
from db.accounts.models import METADATA
from db.accounts.permissions import Role, Scope
from db.accounts.repositories.credentials import CredentialSecrets
from resolvers.identity.addresses import change_email
from resolvers.identity.administration import invite, set_disabled, set_role
from resolvers.identity.api_tokens import create_api_token
from resolvers.identity.changing_passwords import request_password_reset
from resolvers.identity.credentials import NewCredential, add_credential
from resolvers.identity.exporting import export_account
from resolvers.identity.failures import (
    CodeNeeded,
    CredentialInUse,
    LastAdmin,
    Unauthenticated,
    WrongCode,
    WrongPassword,
)
from resolvers.identity.housekeeping import prune
from resolvers.identity.leaving import delete_account
from resolvers.identity.saved_work import (
    LayoutToSave,
    PresetToSave,
    save_chart_layout,
    save_indicator_preset,
    save_preferences,
)
from resolvers.identity.second_factor import confirm, enrol
from tests.accounts import ORIGIN, PASSWORD, Stage


async def settled(stage: Stage):
    """Return a user with something in every table, signed in."""
    user = await stage.member(nickname="Ada", location="Ulm", bio="Likes bars")
    principal = await stage.principal(user)
    identity = stage.identity
    secrets = CredentialSecrets(SecretStr("venue-key-abcd1234"), SecretStr("venue-secret"))
    await add_credential(identity, principal, NewCredential("fake", "main", secrets), origin=ORIGIN)
    await create_api_token(
        identity, principal, name="program", scopes=[Scope.READ], password=PASSWORD, origin=ORIGIN
    )
    await enrol(identity, principal, PASSWORD, origin=ORIGIN)
    await request_password_reset(identity, user.email, origin=ORIGIN)
    await stage.done()
    await change_email(
        identity, principal, password=PASSWORD, email=f"new-{user.email}", origin=ORIGIN
    )
    await save_preferences(identity, principal, {"theme_of": "dark"})
    await save_chart_layout(identity, principal, LayoutToSave("plain", {"panes": []}))
    await save_indicator_preset(identity, principal, PresetToSave("rsi", "slow", {"period": 30}))
    return user, principal


async def test_an_export_holds_everything_of_the_user_as_json_and_nothing_secret(
    stage: Stage,
) -> None:
    user, principal = await settled(stage)

    exported = await export_account(stage.identity, principal, PASSWORD, origin=ORIGIN)

    text = json.dumps(exported)
    assert exported["user"]["email"] == user.email
    assert exported["user"]["registeredAt"] == user.registered_at.isoformat()
    assert exported["emailToVerify"] == f"new-{user.email}"
    assert exported["secondFactor"] == {"isOn": False, "recoveryCodesLeft": None}
    assert exported["sessions"][0]["agent"] == ORIGIN.agent
    assert exported["credentials"][0]["keyHint"] == "1234"
    assert exported["preferences"]["content"] == {"theme_of": "dark"}
    assert exported["chartLayouts"][0]["content"] == {"panes": []}
    assert exported["indicatorPresets"][0]["indicator"] == "rsi"
    assert exported["apiTokens"][0]["scopes"] == ["read"]
    assert {line["action"] for line in exported["auditLog"]} >= {"login", "add-credential"}
    for secret in ("argon2", "hash", "venue-key", "venue-secret", "ciphertext", "data_key"):
        assert secret not in text


async def test_an_export_has_something_of_each_table_with_the_user_in_it(
    stage: Stage, accounts_engine: AsyncEngine
) -> None:
    # Whoever adds a table adds it to the export, or here with why not.
    exported_as = {
        "users": "user",
        "email_verifications": "emailToVerify",
        "user_totp": "secondFactor",
        "recovery_codes": "secondFactor",
        "invitations": "invitations",
        "refresh_sessions": "sessions",
        "api_tokens": "apiTokens",
        "user_api_credentials": "credentials",
        "user_general_preferences": "preferences",
        "user_chart_layouts": "chartLayouts",
        "user_indicator_presets": "indicatorPresets",
        "audit_log": "auditLog",
    }
    secret = {"password_resets"}
    _, principal = await settled(stage)

    exported = await export_account(stage.identity, principal, PASSWORD, origin=ORIGIN)

    theirs = {
        table.name
        for table in METADATA.tables.values()
        if table.name == "users"
        or {"user_id", "invited_by"} & {column.name for column in table.columns}
    }
    assert set(exported_as) == theirs - secret
    assert set(exported_as.values()) == set(exported)


async def test_an_export_of_an_admin_tells_whom_they_invited_and_what_they_did_to_others(
    stage: Stage,
) -> None:
    user, principal = await stage.member(), await stage.principal(await stage.member(Role.ADMIN))
    await invite(stage.identity, principal, role=Role.USER, email="eve@example.com", origin=ORIGIN)
    await set_role(stage.identity, principal, user.username, Role.READ_ONLY, origin=ORIGIN)

    exported = await export_account(stage.identity, principal, PASSWORD, origin=ORIGIN)

    assert [each["emailKey"] for each in exported["invitations"]] == ["eve@example.com"]
    assert {"invite", "set-role"} <= {line["action"] for line in exported["auditLog"]}
    assert str(user.id) not in json.dumps(exported)


async def test_an_export_takes_the_password_and_a_wrong_one_is_in_the_log(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)

    with pytest.raises(WrongPassword):
        await export_account(stage.identity, principal, SecretStr("wrong horse"), origin=ORIGIN)

    assert (await stage.lines(user))[-1] == ("export-account", "WRONG_PASSWORD")


async def test_a_deleted_user_is_in_no_table_but_the_log_which_names_no_person(
    stage: Stage, accounts_engine: AsyncEngine
) -> None:
    user, principal = await settled(stage)

    await delete_account(stage.identity, principal, PASSWORD, code=None, origin=ORIGIN)

    with pytest.raises(Unauthenticated):
        await stage.identity.check(principal.claims)
    async with accounts_engine.connect() as connection:
        for table in METADATA.tables.values():
            if "user_id" not in table.columns or table.name == "audit_log":
                continue
            rows = await connection.scalar(
                select(func.count()).select_from(table).where(table.c.user_id == user.id)
            )
            assert (table.name, rows) == (table.name, 0)
        log = METADATA.tables["audit_log"]
        lines = (await connection.execute(select(log).where(log.c.user_id == user.id))).all()
    assert {"login", "add-credential", "delete-account"} <= {line.action for line in lines}
    assert {(line.address, line.target) for line in lines} == {(None, None)}


async def test_the_tables_of_a_user_are_all_known(accounts_engine: AsyncEngine) -> None:
    async with accounts_engine.connect() as connection:
        tables = await connection.run_sync(lambda c: set(inspect(c).get_table_names()))

    assert tables == set(METADATA.tables) | {"alembic_version"}


async def test_what_others_did_to_a_deleted_user_and_what_they_did_to_others_stays_told(
    stage: Stage,
) -> None:
    leaving, staying = await stage.member(Role.ADMIN), await stage.member(Role.ADMIN)
    one, other = await stage.principal(leaving), await stage.principal(staying)
    await set_role(stage.identity, one, staying.username, Role.ADMIN, origin=ORIGIN)
    await set_role(stage.identity, other, leaving.username, Role.ADMIN, origin=ORIGIN)

    await delete_account(stage.identity, one, PASSWORD, code=None, origin=ORIGIN)

    async with stage.identity.accounts.transaction() as transaction:
        (kept,) = await transaction.audit.page(first=9, user_id=staying.id, action="set-role")
        (theirs,) = await transaction.audit.page(first=9, user_id=leaving.id, action="set-role")
    assert (kept.target, kept.address) == ("admin", None)
    assert (theirs.target, theirs.address) == (None, ORIGIN.address)


async def test_leaving_takes_the_password_and_a_wrong_one_is_in_the_log(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)

    with pytest.raises(WrongPassword):
        await delete_account(
            stage.identity, principal, SecretStr("wrong horse"), code=None, origin=ORIGIN
        )

    assert await stage.identity.check(principal.claims) == principal
    assert (await stage.lines(user))[-1] == ("delete-account", "WRONG_PASSWORD")


async def test_leaving_takes_a_code_where_codes_are_on_and_the_address_is_told(
    stage: Stage,
) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    enrolment = await enrol(stage.identity, principal, PASSWORD, origin=ORIGIN)
    phone = pyotp.TOTP(enrolment.secret.get_secret_value())
    recovery = await confirm(
        stage.identity, principal, phone.at(stage.clock.at // 1000), origin=ORIGIN
    )

    for code, refusal in ((None, CodeNeeded), ("no code", WrongCode)):
        with pytest.raises(refusal):
            await delete_account(stage.identity, principal, PASSWORD, code=code, origin=ORIGIN)
    assert (await stage.lines(user))[-1] == ("delete-account", "WRONG_CODE")
    await delete_account(
        stage.identity, principal, PASSWORD, code=recovery[0].get_secret_value(), origin=ORIGIN
    )

    with pytest.raises(Unauthenticated):
        await stage.identity.check(principal.claims)
    assert stage.mailbox.mails[-1].subject == "Your account was deleted"


async def test_nobody_leaves_while_something_uses_their_credential(stage: Stage) -> None:
    user, principal = await settled(stage)
    async with stage.identity.accounts.transaction() as transaction:
        (held,) = await transaction.credentials.of(user.id)
    stage.users.names[held.id] = ["order 7"]

    with pytest.raises(CredentialInUse):
        await delete_account(stage.identity, principal, PASSWORD, code=None, origin=ORIGIN)


async def without_admins(stage: Stage) -> None:
    """Forget the admins of other tests."""
    async with stage.identity.accounts.transaction() as transaction:
        for admin_id in await transaction.users.lock_admins():
            await transaction.users.delete(admin_id)


async def test_the_only_admin_stays_one(stage: Stage) -> None:
    await without_admins(stage)
    admin = await stage.member(Role.ADMIN)
    principal = await stage.principal(admin)

    with pytest.raises(LastAdmin):
        await delete_account(stage.identity, principal, PASSWORD, code=None, origin=ORIGIN)
    with pytest.raises(LastAdmin):
        await set_role(stage.identity, principal, admin.username, Role.USER, origin=ORIGIN)
    with pytest.raises(LastAdmin):
        await set_disabled(stage.identity, principal, admin.username, True, origin=ORIGIN)

    await stage.member(Role.ADMIN)
    await delete_account(stage.identity, principal, PASSWORD, code=None, origin=ORIGIN)


async def test_an_admin_who_never_proved_their_address_looks_after_nothing(stage: Stage) -> None:
    await without_admins(stage)
    admin = await stage.member(Role.ADMIN)
    new = await stage.member(Role.ADMIN, email_verified_at=None, registered_at=stage.identity.now())
    principal = await stage.principal(admin)

    with pytest.raises(LastAdmin):
        await delete_account(stage.identity, principal, PASSWORD, code=None, origin=ORIGIN)
    with pytest.raises(LastAdmin):
        await set_role(stage.identity, principal, admin.username, Role.USER, origin=ORIGIN)
    with pytest.raises(LastAdmin):
        await set_disabled(stage.identity, principal, admin.username, True, origin=ORIGIN)
    stage.later(8 * 86_400)
    await prune(stage.identity)

    async with stage.identity.accounts.transaction() as transaction:
        assert await transaction.users.find(new.id) is None
    assert (await stage.principal(admin)).role is Role.ADMIN


async def test_admins_who_put_each_other_out_at_once_do_not_wait_for_ever_and_one_stays(
    stage: Stage,
) -> None:
    for _ in range(5):
        await without_admins(stage)
        one, two = await stage.member(Role.ADMIN), await stage.member(Role.ADMIN)
        first, second = await stage.principal(one), await stage.principal(two)

        outcomes = await asyncio.gather(
            set_role(stage.identity, first, two.username, Role.USER, origin=ORIGIN),
            set_disabled(stage.identity, second, one.username, True, origin=ORIGIN),
            delete_account(stage.identity, second, PASSWORD, code=None, origin=ORIGIN),
            return_exceptions=True,
        )

        failed = {type(each) for each in outcomes if isinstance(each, BaseException)}
        assert failed <= {LastAdmin, NotFound, Unauthenticated}
        async with stage.identity.accounts.transaction() as transaction:
            assert len(await transaction.users.lock_admins()) == 1
