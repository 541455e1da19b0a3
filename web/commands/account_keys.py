"""`python -m web accounts rotate-keys` and `drop-keys`: other keys for what is encrypted."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from web.commands.base import command_origin

if TYPE_CHECKING:
    from db.accounts.rewrapping import Rewrapped
    from db.encryption import KeyRing
    from web.accounts_wiring import AccountsParts
    from web.settings import Settings

_MOST_ROUNDS = 10
_MOST_ROWS = 100
"""Rows that do not open which are printed one by one."""


async def rotate_keys(parts: AccountsParts, settings: Settings, chosen: argparse.Namespace) -> int:
    """Encrypt everything under a new key, or end a rotation that was begun before.

    Rows that do not open are named, and keep nothing else back. Returns 1 while anything is not
    under the newest key.
    """
    from db.accounts.rewrapping import keys_in_use  # noqa: PLC0415
    from web.accounts_wiring import ENCRYPTION_FILE, key_ring  # noqa: PLC0415
    from web.key_file import add_key  # noqa: PLC0415

    ring = key_ring(settings)
    wrapped = await _rewrapped(parts, ring)
    if settings.encryption_keys is None and wrapped.count:
        print("That ends a rotation that was begun before. For another key run this again.")
    elif settings.encryption_keys is None:
        # A server that runs reads the file again when it meets a row under the new key.
        add_key(settings.data_dir / ENCRYPTION_FILE)
        ring = key_ring(settings)
        wrapped = await _rewrapped(parts, ring)
    stuck = Counter(row.key_id for row in wrapped.stuck)
    others = Counter(await keys_in_use(parts.engine))
    del others[ring.newest]
    for key, rows in (others - stuck).items():
        print(f"{rows} rows are still under the key {key}: run this again.")
    for row in wrapped.stuck[:_MOST_ROWS]:
        print(f"Row {row.id} of {row.table} does not open under the key {row.key_id}: {row.code}.")
    if len(wrapped.stuck) > _MOST_ROWS:
        print(f"{len(wrapped.stuck) - _MOST_ROWS} more rows do not open.")
    if not others:
        print(f"Everything is under the key {ring.newest}.")
    await _note(parts, "rotate-keys", target=ring.newest, result="INCOMPLETE" if others else "ok")
    return 1 if others else 0


async def _rewrapped(parts: AccountsParts, ring: KeyRing) -> Rewrapped:
    """Bring all rows under the newest key of *ring*, and say how many those were."""
    from db.accounts.rewrapping import Rewrapped, rewrap_all  # noqa: PLC0415

    count = 0
    for _ in range(_MOST_ROUNDS):
        # A server may have written under the key before while a round went on.
        round_ = await rewrap_all(parts.engine, ring)
        if not round_.count:
            break
        count += round_.count
        print(f"{round_.count} rows are under the key {ring.newest} now.")
    return Rewrapped(count, round_.stuck)


async def drop_keys(parts: AccountsParts, settings: Settings, chosen: argparse.Namespace) -> int:
    """Forget keys in `DATA_DIR` that nothing is encrypted under. Raises `KeyUnsettled`."""
    from db.accounts.rewrapping import keys_in_use  # noqa: PLC0415
    from web import key_file  # noqa: PLC0415
    from web.accounts_wiring import ENCRYPTION_FILE  # noqa: PLC0415

    if settings.encryption_keys is not None:
        print("The keys are in ENCRYPTION_KEYS: take old ones out there.", file=sys.stderr)
        return 1
    path = settings.data_dir / ENCRYPTION_FILE
    in_use = await keys_in_use(parts.engine)
    # An operation is given up, then ends with its statement; a minute for all else.
    settled = settings.execution_timeout + settings.statement_timeout + 60
    gone, kept = key_file.drop_keys(path, in_use, now=time.time(), settled=settled)
    print(f"Keys forgotten: {len(gone)}, kept: {len(kept)}.")
    for key in gone:
        await _note(parts, "drop-keys", target=key)
    return 0


async def _note(parts: AccountsParts, action: str, *, target: str, result: str = "ok") -> None:
    """Keep in the audit log what was done from the command line, by nobody it knows."""
    async with parts.identity.accounts.transaction() as transaction:
        await transaction.audit.add(
            parts.identity.entry(
                action, command_origin(), user_id=None, target=target, result=result
            )
        )
