"""The table of keys at venues: all of a key is ciphertext, but for its last four characters."""

from __future__ import annotations

from sqlalchemy import Boolean, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.accounts.columns import Exact, Octets
from db.accounts.models.base import MARIADB_OPTIONS, Table
from db.accounts.models.identity import Key, MaybeTime, OwnerId, Time

LONGEST_CIPHERTEXT = 8_192


class CredentialRow(Table):
    """*data_key* opens the three ciphertexts, and is itself wrapped by the key *key_id* names."""

    __tablename__ = "user_api_credentials"
    __table_args__ = (UniqueConstraint("user_id", "service", "name"), MARIADB_OPTIONS)
    id: Mapped[Key]
    user_id: Mapped[OwnerId]
    service: Mapped[str] = mapped_column(Exact(40))
    name: Mapped[str] = mapped_column(Exact(80))
    key_ciphertext: Mapped[bytes] = mapped_column(Octets(LONGEST_CIPHERTEXT))
    secret_ciphertext: Mapped[bytes] = mapped_column(Octets(LONGEST_CIPHERTEXT))
    aux_ciphertext: Mapped[bytes | None] = mapped_column(Octets(LONGEST_CIPHERTEXT))
    data_key: Mapped[bytes] = mapped_column(Octets(100))
    key_id: Mapped[str] = mapped_column(Exact(16), index=True)
    testnet: Mapped[bool] = mapped_column(Boolean)
    notes: Mapped[str | None] = mapped_column(Exact(2000))
    key_hint: Mapped[str] = mapped_column(Exact(4))
    created_at: Mapped[Time]
    updated_at: Mapped[Time]
    last_checked_at: Mapped[MaybeTime]
    version: Mapped[int] = mapped_column(Integer)
