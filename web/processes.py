"""Run several server processes as one: start them, replace those that die, stop them together.

API processes share one listening socket, so clients see one address. The signal USR1 replaces all
processes one after the other: the next is told to stop when its successor answers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from market.errors import BargraphError
from web.serve import listening
from web.settings import Role, Settings

log = logging.getLogger(__name__)

_READY = "Bargraph serves "
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
"""A process ends by itself within 5 seconds of being told to."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


class ProcessFailed(BargraphError):
    """A process ended before it answered."""

    code = "PROCESS_FAILED"


@dataclass(slots=True)
class _Member:
    """One place among the processes, and who fills it at the moment."""

    name: str
    role: Role
    process: Process
    address: str


class Processes:
    """The processes of one server, each of a role, in the environment of this one."""

    def __init__(self, roles: Sequence[Role], listener: socket.socket) -> None:
        self._roles = roles
        self._listener = listener
        self._environment = dict(os.environ)
        self._members: list[_Member] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    async def run(self) -> None:
        """Start all, keep them running, and stop them on a signal. Raises `ProcessFailed`."""
        told = asyncio.Event()
        renewed = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, told.set)
        loop.add_signal_handler(signal.SIGUSR1, renewed.set)
        starting = asyncio.ensure_future(self._start_all())
        stopped = asyncio.ensure_future(told.wait())
        renewing = asyncio.create_task(self._renew_again(renewed), name="renewals")
        try:
            await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                print("\n".join(self.banner()), flush=True)  # noqa: T201 - it is for people to read
                await stopped
        finally:
            self._stopping = True
            for task in (starting, stopped, renewing, *self._keepers):
                task.cancel()
            await asyncio.gather(
                starting, stopped, renewing, *self._keepers, return_exceptions=True
            )
            await asyncio.gather(*(_stop(member.process) for member in self._members))

    def banner(self) -> list[str]:
        """Return where clients go, and where each other process tells of itself."""
        clients = [member for member in self._members if member.role.answers]
        lines = [f"{_READY}{clients[0].address}/graphql" if clients else "Bargraph runs"]
        for member in self._members:
            health = "" if member in clients else f", {member.address}/metrics"
            lines.append(f"Process    {member.name}: {member.process.pid}{health}")
        lines.append("Replace all one by one with the signal USR1")
        return lines

    async def _start_all(self) -> None:
        names = [f"{role}-{self._roles[: n + 1].count(role)}" for n, role in enumerate(self._roles)]
        # The first one starts the embedded servers and migrates; the others find that done.
        for name, role in zip(names, self._roles, strict=True):
            member = await self._start(name, role)
            self._members.append(member)
            keeper = asyncio.create_task(self._keep(member), name=f"keep {name}")
            self._keepers.append(keeper)

    async def _start(self, name: str, role: Role) -> _Member:
        environment = {**self._environment, "ROLE": role}
        command = [sys.executable, "-m", "web", "serve", "--stop-with-parent"]
        inherited: tuple[int, ...] = ()
        if role.answers:
            inherited = (self._listener.fileno(),)
            command += ["--fd", str(inherited[0])]
        else:
            environment["PORT"] = "0"
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=PIPE, pass_fds=inherited, start_new_session=True
        )
        try:
            address = await asyncio.wait_for(_address(process), _START_SECONDS)
        except BaseException as failure:
            await _stop(process)
            if isinstance(failure, asyncio.CancelledError):
                raise
            raise ProcessFailed(f"{name} did not start; what it said stands above") from failure
        return _Member(name, role, process, address)

    async def _keep(self, member: _Member) -> None:
        """Start *member* anew whenever it ends without being told to."""
        pause = _FIRST_PAUSE
        while True:
            process = member.process
            await _drained(process)
            code = await process.wait()
            if self._stopping:
                return
            if process is not member.process:
                continue
            log.error("%s ended with %s and is started again", member.name, code)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            with suppress(ProcessFailed):
                self._replace(member, await self._start(member.name, member.role))
                pause = _FIRST_PAUSE

    async def _renew_again(self, renewed: asyncio.Event) -> None:
        while True:
            await renewed.wait()
            renewed.clear()
            for member in self._members:
                old = member.process
                try:
                    successor = await self._start(member.name, member.role)
                except ProcessFailed as failure:
                    log.error("%s; the others are left as they are", failure)
                    break
                self._replace(member, successor)
                await _stop(old)

    @staticmethod
    def _replace(member: _Member, successor: _Member) -> None:
        member.process, member.address = successor.process, successor.address
        log.info("%s is process %d now", member.name, member.process.pid)


async def _address(process: Process) -> str:
    """Return where *process* says that it serves. Raises `EOFError` if it ends before."""
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        if line.startswith(_READY):
            return line.removeprefix(_READY).strip().removesuffix("/graphql")
    raise EOFError


async def _drained(process: Process) -> None:
    """Read what else *process* says on its standard output, so that it never waits for us."""
    assert process.stdout is not None
    while await process.stdout.read(1 << 16):
        pass


async def _stop(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def run_processes(settings: Settings, roles: Sequence[Role]) -> None:
    """Run a process for each of *roles*. Raises `AddressInUse`, `ProcessFailed`."""
    with listening(settings.host, settings.port) as listener:
        await Processes(roles, listener).run()
