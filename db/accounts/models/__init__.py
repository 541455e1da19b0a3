"""The tables of accounts, as SQLAlchemy sees them; `METADATA` holds all of them."""

from db.accounts.models import credentials, identity, saved
from db.accounts.models.base import Table

METADATA = Table.metadata

__all__ = ["METADATA", "credentials", "identity", "saved"]
