"""Export and deletion: everything of one's own, nothing secret, nothing left but a faceless log."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr
from sqlalchemy import func, inspect, select
from sqlalchemy.ext.asyncio import AsyncEngine

from db.accounts.models import METADATA
from db.accounts.permissions import Role, Scope
from db.accounts.repositories.credentials import CredentialSecrets
from resolvers.identity.administration import set_disabled, set_role
from resolvers.identity.api_tokens import create_api_token
from resolvers.identity.changing_passwords import request_password_reset
from resolvers.identity.credentials import NewCredential, add_credential
from resolvers.identity.failures import CredentialInUse, LastAdmin, Unauthenticated, WrongPassword
from resolvers.identity.leaving import delete_account, export_account
from resolvers.identity.saved_work import (
    LayoutToSave,
    PresetToSave,
    save_chart_layout,
    save_indicator_preset,
    save_preferences,
)
from resolvers.identity.second_factor import enrol
from tests.accounts import ORIGIN, PASSWORD, Stage


async def settled(stage: Stage):
    """Return a user with something in every table, signed in."""
    user = await stage.member(nickname="Ada", location="Ulm", bio="Likes bars")
    principal = await stage.principal(user)
    identity = stage.identity
    secrets = CredentialSecrets(SecretStr("venue-key-abcd1234"), SecretStr("venue-secret"))
    await add_credential(identity, principal, NewCredential("fake", "main", secrets), origin=ORIGIN)
    await create_api_token(identity, principal, name="program", scopes=[Scope.READ], origin=ORIGIN)
    await enrol(identity, principal, PASSWORD, origin=ORIGIN)
    await request_password_reset(identity, user.email, origin=ORIGIN)
    await save_preferences(identity, principal, {"theme": "dark"})
    await save_chart_layout(identity, principal, LayoutToSave("plain", {"panes": []}))
    await save_indicator_preset(identity, principal, PresetToSave("rsi", "slow", {"period": 30}))
    return user, principal


async def test_an_export_holds_everything_of_the_user_as_json_and_nothing_secret(
    stage: Stage,
) -> None:
    user, principal = await settled(stage)

    exported = await export_account(stage.identity, principal, origin=ORIGIN)

    text = json.dumps(exported)
    assert exported["user"]["email"] == user.email
    assert exported["user"]["registered_at"] == user.registered_at.isoformat()
    assert exported["credentials"][0]["key_hint"] == "1234"
    assert exported["preferences"] == {"theme": "dark"}
    assert exported["chartLayouts"][0]["content"] == {"panes": []}
    assert exported["indicatorPresets"][0]["indicator"] == "rsi"
    assert exported["apiTokens"][0]["scopes"] == ["read"]
    assert {line["action"] for line in exported["auditLog"]} >= {"login", "add-credential"}
    for secret in ("argon2", "hash", "venue-key", "venue-secret", "ciphertext", "data_key"):
        assert secret not in text


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


async def test_leaving_takes_the_password(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())

    with pytest.raises(WrongPassword):
        await delete_account(
            stage.identity, principal, SecretStr("wrong horse"), code=None, origin=ORIGIN
        )

    assert await stage.identity.check(principal.claims) == principal


async def test_nobody_leaves_while_something_uses_their_credential(stage: Stage) -> None:
    user, principal = await settled(stage)
    async with stage.identity.accounts.transaction() as transaction:
        (held,) = await transaction.credentials.of(user.id)
    stage.users.names[held.id] = ["order 7"]

    with pytest.raises(CredentialInUse):
        await delete_account(stage.identity, principal, PASSWORD, code=None, origin=ORIGIN)


async def test_the_only_admin_stays_one(stage: Stage) -> None:
    async with stage.identity.accounts.transaction() as transaction:
        after = None
        while page := await transaction.users.page(first=500, after=after):
            after = page[-1].username
            for user in page:
                if user.role is Role.ADMIN:
                    await transaction.users.delete(user.id)
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
