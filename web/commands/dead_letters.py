"""`python -m web dead-letters`: see trades that could not be stored, and try or forget them."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from web.commands.base import Commands
from web.commands.connected import connected_redis

if TYPE_CHECKING:
    from datasources.ingest.stream import DeadLetter, TradeStream
    from web.settings import Settings

_SHOWN = 200
_PAGE = 100


def register(commands: Commands) -> None:
    letters = commands.add_parser("dead-letters", help="trades that could not be stored")
    actions = letters.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="list them, the oldest first")
    listing.set_defaults(run=_run(_list))
    replay = actions.add_parser("replay", help="put them back into the stream")
    replay.set_defaults(run=_run(_replay))
    drop = actions.add_parser("drop", help="forget them; their minutes stay incomplete")
    drop.set_defaults(run=_run(_drop))
    for action in (replay, drop):
        chosen = action.add_mutually_exclusive_group(required=True)
        chosen.add_argument(
            "ids", nargs="*", default=[], type=_id, metavar="ID", help="ids that `list` shows"
        )
        chosen.add_argument("--all", action="store_true", help="all of them")


def _id(text: str) -> str:
    if not re.fullmatch(r"\d{1,20}-\d{1,20}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be an id that `list` shows, not {text!r}")
    return text


def _run(
    action: Callable[[TradeStream, argparse.Namespace], Awaitable[int]],
) -> Callable[[argparse.Namespace], int]:
    """Return what runs *action* on the stream of the settings."""

    def run(chosen: argparse.Namespace) -> int:
        from web.settings import load_settings  # noqa: PLC0415 - a wrong one shows at once

        return asyncio.run(_with_stream(load_settings(), action, chosen))

    return run


async def _with_stream(
    settings: Settings,
    action: Callable[[TradeStream, argparse.Namespace], Awaitable[int]],
    chosen: argparse.Namespace,
) -> int:
    from datasources.ingest.stream import TradeStream  # noqa: PLC0415 - heavy

    async with connected_redis(settings) as redis:
        return await action(TradeStream(redis, prefix=settings.redis_prefix), chosen)


async def _list(stream: TradeStream, chosen: argparse.Namespace) -> int:
    letters = await stream.dead(most=_SHOWN)
    for letter in letters:
        print(f"{letter.id}  {_told(letter)}  {letter.reason}")
    if newer := (await stream.lag()).dead - len(letters):
        print(f"And {newer} newer ones.")
    if not letters:
        print("No trades are left that could not be stored.")
    return 0


def _told(letter: DeadLetter) -> str:
    """Return what is in *letter*, as far as it can be read."""
    from datasources.ingest.entry import Unreadable, unpacked  # noqa: PLC0415

    try:
        telling = unpacked(letter.payload)
    except Unreadable:
        return f"{len(letter.payload)} bytes"
    listing = telling.key.listing
    return f"{listing.provider}:{listing.symbol}  {len(telling.trades)} trades"


async def _replay(stream: TradeStream, chosen: argparse.Namespace) -> int:
    return await _each(stream, chosen, stream.replay, "put back")


async def _drop(stream: TradeStream, chosen: argparse.Namespace) -> int:
    return await _each(stream, chosen, stream.drop, "dropped")


async def _each(
    stream: TradeStream,
    chosen: argparse.Namespace,
    act: Callable[[str], Awaitable[bool]],
    done: str,
) -> int:
    """Do *act* with every letter chosen, the oldest first; 1 if one of them is not there."""
    status = 0
    async for named in _all(stream) if chosen.all else _named(chosen.ids):
        found = await act(named)
        print(f"{named}  {done if found else 'no such letter'}")
        status = status if found else 1
    return status


async def _named(ids: Sequence[str]) -> AsyncIterator[str]:
    for one in ids:
        yield one


async def _all(stream: TradeStream) -> AsyncIterator[str]:
    """Yield the id of every letter that is there now, but not those that die meanwhile."""
    last = ""
    for left in range((await stream.lag()).dead, 0, -_PAGE):
        letters = await stream.dead(after=last, most=min(left, _PAGE))
        for letter in letters:
            yield letter.id
            last = letter.id
