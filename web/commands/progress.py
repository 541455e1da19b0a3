"""A bar on the terminal that says how far a command is; nothing where nobody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(total: int | None, what: str, *, unit: str, scale: bool = False) -> Iterator[Any]:
    """Yield a bar of tqdm's. With *scale* numbers are shown as 1.2M."""
    from tqdm import tqdm  # noqa: PLC0415 - only where something takes long

    with tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=scale,
        disable=None,  # where nobody looks at a terminal
    ) as bar:
        yield bar
