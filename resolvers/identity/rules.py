"""How a server handles accounts: who may register, and how long things last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Registration(StrEnum):
    """Who may make an account."""

    OPEN = "open"
    INVITATION = "invitation"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Rules:
    """How this server does it. *public_url* is where its pages are, without a slash at its end."""

    registration: Registration = Registration.OPEN
    public_url: str = "http://localhost:8000"
    session: timedelta = timedelta(days=30)
    """How long a session lasts, however busy."""
    idle_session: timedelta = timedelta(days=7)
    """How long a session lasts that nobody uses."""
    mailed_token: timedelta = timedelta(hours=1)
    verification: timedelta = timedelta(days=2)
    invitation: timedelta = timedelta(days=7)
    two_tabs: timedelta = timedelta(seconds=10)
    """How long a refresh token that was used gives its successor again, and that one itself."""
