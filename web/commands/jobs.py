"""`python -m web jobs`: see who runs jobs, and what to do with those that were given up."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from web.commands.base import Commands
from web.commands.connected import connected_redis

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from web.jobs.dead_letters import DeadLetter, DeadLetters
    from web.settings import Settings

_SHOWN = 200


def register(commands: Commands) -> None:
    jobs = commands.add_parser("jobs", help="who runs jobs, and those that were given up")
    actions = jobs.add_subparsers(dest="action", required=True)
    workers = actions.add_parser("workers", help="list the processes that run jobs")
    workers.set_defaults(run=_run(_workers))
    dead = actions.add_parser("dead", help="list the jobs that were given up, the newest first")
    dead.set_defaults(run=_run(_dead))
    replay = actions.add_parser("replay", help="queue such jobs again")
    replay.set_defaults(run=_run(_replay))
    drop = actions.add_parser("drop", help="forget such jobs")
    drop.set_defaults(run=_run(_drop))
    for action in (replay, drop):
        chosen = action.add_mutually_exclusive_group(required=True)
        chosen.add_argument(
            "ids", nargs="*", default=[], type=_id, metavar="ID", help="ids that `dead` shows"
        )
        chosen.add_argument("--all", action="store_true", help="all of them")


def _id(text: str) -> str:
    if not re.fullmatch(r"\d{1,20}-\d{1,20}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be an id that `dead` shows, not {text!r}")
    return text


def _run(
    action: Callable[[Redis, str, argparse.Namespace], Awaitable[int]],
) -> Callable[[argparse.Namespace], int]:
    """Return what runs *action* with the Redis and the prefix of the settings."""

    def run(chosen: argparse.Namespace) -> int:
        from web.settings import load_settings  # noqa: PLC0415 - a wrong one shows at once

        return asyncio.run(_with_redis(load_settings(), action, chosen))

    return run


async def _with_redis(
    settings: Settings,
    action: Callable[[Redis, str, argparse.Namespace], Awaitable[int]],
    chosen: argparse.Namespace,
) -> int:
    from redis.exceptions import RedisError  # noqa: PLC0415

    from datasources.live.redis_away import RedisAway  # noqa: PLC0415

    async with connected_redis(settings) as redis:
        try:
            return await action(redis, settings.redis_prefix, chosen)
        except (RedisError, OSError) as error:
            raise RedisAway(f"Redis did not answer: {type(error).__name__}") from error


async def _workers(redis: Redis, prefix: str, chosen: argparse.Namespace) -> int:
    from web.jobs.workers import Workers  # noqa: PLC0415

    found = await Workers(redis, prefix=prefix, name="", idle_ms=0).listed()
    for worker in found:
        print(f"{worker.name}  heard of {worker.silent_ms / 1000:.1f} s ago")
    if not found:
        print("No process runs jobs.")
    return 0


async def _dead(redis: Redis, prefix: str, chosen: argparse.Namespace) -> int:
    letters = await _letters(redis, prefix).listed()
    for letter in letters[:_SHOWN]:
        at = datetime.fromtimestamp(letter.at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        arguments = "unreadable" if letter.arguments is None else json.dumps(letter.arguments)
        print(
            f"{letter.id}  {at}  {letter.task or '?'}  {letter.reason} "
            f"after {letter.failures}  {arguments}"
        )
    if len(letters) > _SHOWN:
        print(f"And {len(letters) - _SHOWN} older ones.")
    if not letters:
        print("No job was given up.")
    return 0


async def _replay(redis: Redis, prefix: str, chosen: argparse.Namespace) -> int:
    letters = _letters(redis, prefix)

    async def replay(letter: DeadLetter) -> str:
        if await letters.replay(letter):
            return "queued again"
        return "dropped: a job with its key is queued already"

    return await _each(letters, chosen, replay)


async def _drop(redis: Redis, prefix: str, chosen: argparse.Namespace) -> int:
    letters = _letters(redis, prefix)

    async def drop(letter: DeadLetter) -> str:
        await letters.drop(letter)
        return "dropped"

    return await _each(letters, chosen, drop)


async def _each(
    letters: DeadLetters,
    chosen: argparse.Namespace,
    act: Callable[[DeadLetter], Awaitable[str]],
) -> int:
    """Do *act* with every letter chosen, the oldest first; 1 if one of them is not there."""
    if chosen.all:
        for letter in reversed(await letters.listed()):
            print(f"{letter.id}  {await act(letter)}")
        return 0
    status = 0
    for named in chosen.ids:
        found = await letters.find(named)
        if found is None:
            status = 1
        print(f"{named}  {await act(found) if found else 'no such letter'}")
    return status


def _letters(redis: Redis, prefix: str) -> DeadLetters:
    from web.jobs.dead_letters import DeadLetters  # noqa: PLC0415

    return DeadLetters(redis, prefix=prefix)
