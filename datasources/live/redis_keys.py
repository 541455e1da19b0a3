"""What the live feeds call things in Redis: every name is made here, under the prefix given."""

from __future__ import annotations


def channel_name(prefix: str, channel: str) -> str:
    """Return what *channel* is called in pub/sub, which knows no databases: hence the prefix."""
    return f"{prefix}live:{channel}"


def log_key(prefix: str, channel: str) -> str:
    """Return the key of the capped stream beside *channel*."""
    return f"{prefix}log:{channel}"


def lease_key(prefix: str, name: str) -> str:
    """Return the key that holds the token and the owner of the lease *name*."""
    return f"{prefix}lease:{name}"


def newest_token_key(prefix: str) -> str:
    """Return the key of the newest fencing token that was granted for any lease."""
    return f"{prefix}newest-token"


def interest_key(prefix: str) -> str:
    """Return the key of the sorted set of what somebody listens to."""
    return f"{prefix}interest"
