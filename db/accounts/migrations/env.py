"""Run what alembic was asked for, on the connection that `db.accounts.schema` hands over."""

from __future__ import annotations

from alembic import context

from db.accounts.models import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
