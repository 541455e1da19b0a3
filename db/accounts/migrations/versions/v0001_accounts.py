"""The first tables of accounts, with the roles and what each may do."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from db.accounts.columns import Document, Exact, Id, Instant, Octets

revision = "0001_accounts"
down_revision = None

_TABLE: dict[str, Any] = {
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
    # MariaDB commits each table: what is there was made by a run that was cut off.
    "if_not_exists": True,
}
_READING = ("account.read", "bots.read", "credentials.read", "orders.read")
_OWN = (
    *_READING,
    "account.change",
    "bots.change",
    "credentials.change",
    "orders.place",
    "saved-work.change",
    "tokens.change",
)
_ROLES = {
    "admin": (*_OWN, "audit.read-all", "backfills.run", "users.change"),
    "user": _OWN,
    "read-only": (*_READING, "account.change", "saved-work.change"),
}


def upgrade() -> None:
    _make_tables()
    _seed()


def _seed() -> None:
    """Say what each role may do. It is committed together with the number of this step."""
    roles = sa.table("roles", sa.column("name", Exact(40)))
    permissions = sa.table("permissions", sa.column("name", Exact(60)))
    pairs = sa.table(
        "role_permissions", sa.column("role", Exact(40)), sa.column("permission", Exact(60))
    )
    op.bulk_insert(roles, [{"name": role} for role in _ROLES])
    op.bulk_insert(permissions, [{"name": held} for held in _ROLES["admin"]])
    op.bulk_insert(
        pairs, [{"role": role, "permission": held} for role in _ROLES for held in _ROLES[role]]
    )


def _make_tables() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("user_id", Id(), nullable=True),
        sa.Column("actor_id", Id(), nullable=True),
        sa.Column("action", Exact(60), nullable=False),
        sa.Column("target", Exact(120), nullable=True),
        sa.Column("result", Exact(60), nullable=False),
        sa.Column("address", Exact(64), nullable=True),
        sa.Column("request_id", Exact(64), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        **_TABLE,
    )
    op.create_index("ix_audit_log_user_id_id", "audit_log", ["user_id", "id"], if_not_exists=True)
    op.create_index("ix_audit_log_actor_id_id", "audit_log", ["actor_id", "id"], if_not_exists=True)
    op.create_table(
        "permissions",
        sa.Column("name", Exact(60), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        **_TABLE,
    )
    op.create_table(
        "roles",
        sa.Column("name", Exact(40), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        **_TABLE,
    )
    op.create_table(
        "role_permissions",
        sa.Column("role", Exact(40), nullable=False),
        sa.Column("permission", Exact(60), nullable=False),
        sa.ForeignKeyConstraint(
            ["permission"], ["permissions.name"], name="fk_role_permissions_permission"
        ),
        sa.ForeignKeyConstraint(["role"], ["roles.name"], name="fk_role_permissions_role"),
        sa.PrimaryKeyConstraint("role", "permission"),
        **_TABLE,
    )
    op.create_table(
        "users",
        sa.Column("id", Id(), nullable=False),
        sa.Column("username", Exact(32), nullable=False),
        sa.Column("username_key", Exact(32), nullable=False),
        sa.Column("email", Exact(254), nullable=False),
        sa.Column("email_key", Exact(254), nullable=False),
        sa.Column("email_verified_at", Instant(), nullable=True),
        sa.Column("password_hash", Exact(255), nullable=False),
        sa.Column("role", Exact(40), nullable=False),
        sa.Column("token_version", sa.Integer(), nullable=False),
        sa.Column("nickname", Exact(80), nullable=True),
        sa.Column("location", Exact(120), nullable=True),
        sa.Column("bio", Exact(2000), nullable=True),
        sa.Column("last_login", Instant(), nullable=True),
        sa.Column("registered_at", Instant(), nullable=False),
        sa.Column("disabled_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(["role"], ["roles.name"], name="fk_users_role"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("email_key", name="uq_users_email_key"),
        sa.UniqueConstraint("username_key", name="uq_users_username_key"),
        **_TABLE,
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", Id(), nullable=False),
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("name", Exact(80), nullable=False),
        sa.Column("prefix", Exact(16), nullable=False),
        sa.Column("token_hash", Octets(32), nullable=False),
        sa.Column("scopes", Exact(100), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("last_used_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_api_tokens_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("prefix", name="uq_api_tokens_prefix"),
        **_TABLE,
    )
    op.create_index("ix_api_tokens_user_id", "api_tokens", ["user_id"], if_not_exists=True)
    op.create_table(
        "email_verifications",
        sa.Column("id", Id(), nullable=False),
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("token_hash", Octets(32), nullable=False),
        sa.Column("email", Exact(254), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_email_verifications_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash", name="uq_email_verifications_token_hash"),
        **_TABLE,
    )
    op.create_index(
        "ix_email_verifications_user_id", "email_verifications", ["user_id"], if_not_exists=True
    )
    op.create_table(
        "invitations",
        sa.Column("id", Id(), nullable=False),
        sa.Column("token_hash", Octets(32), nullable=False),
        sa.Column("role", Exact(40), nullable=False),
        sa.Column("email_key", Exact(254), nullable=True),
        sa.Column("invited_by", Id(), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["invited_by"], ["users.id"], name="fk_invitations_invited_by", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["role"], ["roles.name"], name="fk_invitations_role"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash", name="uq_invitations_token_hash"),
        **_TABLE,
    )
    op.create_table(
        "password_resets",
        sa.Column("id", Id(), nullable=False),
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("token_hash", Octets(32), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_password_resets_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash", name="uq_password_resets_token_hash"),
        **_TABLE,
    )
    op.create_index(
        "ix_password_resets_user_id", "password_resets", ["user_id"], if_not_exists=True
    )
    op.create_table(
        "recovery_codes",
        sa.Column("id", Id(), nullable=False),
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("code_hash", Octets(32), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_recovery_codes_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("user_id", "code_hash", name="uq_recovery_codes_user_id_code_hash"),
        **_TABLE,
    )
    op.create_table(
        "refresh_sessions",
        sa.Column("id", Id(), nullable=False),
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("lookup", Octets(16), nullable=False),
        sa.Column("token_hash", Octets(32), nullable=False),
        sa.Column("previous_hash", Octets(32), nullable=True),
        sa.Column("salt", Octets(32), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("rotated_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("idle_expires_at", Instant(), nullable=False),
        sa.Column("address", Exact(64), nullable=True),
        sa.Column("agent", Exact(200), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_refresh_sessions_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("lookup", name="uq_refresh_sessions_lookup"),
        **_TABLE,
    )
    op.create_index(
        "ix_refresh_sessions_user_id", "refresh_sessions", ["user_id"], if_not_exists=True
    )
    op.create_table(
        "user_api_credentials",
        sa.Column("id", Id(), nullable=False),
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("service", Exact(40), nullable=False),
        sa.Column("name", Exact(80), nullable=False),
        sa.Column("key_ciphertext", Octets(8192), nullable=False),
        sa.Column("secret_ciphertext", Octets(8192), nullable=False),
        sa.Column("aux_ciphertext", Octets(8192), nullable=True),
        sa.Column("data_key", Octets(100), nullable=False),
        sa.Column("key_id", Exact(16), nullable=False),
        sa.Column("testnet", sa.Boolean(), nullable=False),
        sa.Column("notes", Exact(2000), nullable=True),
        sa.Column("key_hint", Exact(4), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.Column("last_checked_at", Instant(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_user_api_credentials_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "user_id", "service", "name", name="uq_user_api_credentials_user_id_service_name"
        ),
        **_TABLE,
    )
    op.create_index(
        "ix_user_api_credentials_key_id", "user_api_credentials", ["key_id"], if_not_exists=True
    )
    op.create_index(
        "ix_user_api_credentials_user_id", "user_api_credentials", ["user_id"], if_not_exists=True
    )
    op.create_table(
        "user_chart_layouts",
        sa.Column("id", Id(), nullable=False),
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("name", Exact(80), nullable=False),
        sa.Column("instrument", Exact(200), nullable=True),
        sa.Column("default_for", Exact(200), nullable=True),
        sa.Column("content", Document(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_user_chart_layouts_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "user_id", "default_for", name="uq_user_chart_layouts_user_id_default_for"
        ),
        **_TABLE,
    )
    op.create_index(
        "ix_user_chart_layouts_user_id", "user_chart_layouts", ["user_id"], if_not_exists=True
    )
    op.create_table(
        "user_general_preferences",
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("content", Document(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name="fk_user_general_preferences_user_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id"),
        **_TABLE,
    )
    op.create_table(
        "user_indicator_presets",
        sa.Column("id", Id(), nullable=False),
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("indicator", Exact(60), nullable=False),
        sa.Column("name", Exact(80), nullable=False),
        sa.Column("content", Document(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_user_indicator_presets_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "user_id", "indicator", "name", name="uq_user_indicator_presets_user_id_indicator_name"
        ),
        **_TABLE,
    )
    op.create_index(
        "ix_user_indicator_presets_user_id",
        "user_indicator_presets",
        ["user_id"],
        if_not_exists=True,
    )
    op.create_table(
        "user_totp",
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("secret_ciphertext", Octets(255), nullable=False),
        sa.Column("data_key", Octets(100), nullable=False),
        sa.Column("key_id", Exact(16), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("confirmed_at", Instant(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_user_totp_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id"),
        **_TABLE,
    )
    op.create_index("ix_user_totp_key_id", "user_totp", ["key_id"], if_not_exists=True)
