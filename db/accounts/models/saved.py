"""Tables of what people saved of their work: preferences, chart layouts, indicator presets.

*version* grows with every change; a change names the version it was made to.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.accounts.columns import Document, Exact
from db.accounts.models.base import MARIADB_OPTIONS, Table
from db.accounts.models.identity import Key, OwnerId, OwnerKey, Time


class PreferencesRow(Table):
    __tablename__ = "user_general_preferences"
    user_id: Mapped[OwnerKey]
    content: Mapped[Any] = mapped_column(Document, nullable=False)
    version: Mapped[int] = mapped_column(Integer)
    updated_at: Mapped[Time]


class ChartLayoutRow(Table):
    """*default_for* is the instrument whose default this layout is, null if it is none's."""

    __tablename__ = "user_chart_layouts"
    __table_args__ = (UniqueConstraint("user_id", "default_for"), MARIADB_OPTIONS)
    id: Mapped[Key]
    user_id: Mapped[OwnerId]
    name: Mapped[str] = mapped_column(Exact(80))
    instrument: Mapped[str | None] = mapped_column(Exact(200))
    default_for: Mapped[str | None] = mapped_column(Exact(200))
    content: Mapped[Any] = mapped_column(Document, nullable=False)
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[Time]
    updated_at: Mapped[Time]


class IndicatorPresetRow(Table):
    __tablename__ = "user_indicator_presets"
    __table_args__ = (UniqueConstraint("user_id", "indicator", "name"), MARIADB_OPTIONS)
    id: Mapped[Key]
    user_id: Mapped[OwnerId]
    indicator: Mapped[str] = mapped_column(Exact(60))
    name: Mapped[str] = mapped_column(Exact(80))
    content: Mapped[Any] = mapped_column(Document, nullable=False)
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[Time]
    updated_at: Mapped[Time]
