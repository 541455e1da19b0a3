"""`python -m web accounts`: the first admin, invitations, roles, lost phones, and keys."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from web.commands.account_keys import drop_keys, rotate_keys
from web.commands.base import Commands, command_origin, log_to_terminal

if TYPE_CHECKING:
    from web.accounts_wiring import AccountsParts
    from web.settings import Settings

_ROLES = ("admin", "user", "read-only")
_PAGE = 500

_Action = Callable[["AccountsParts", "Settings", argparse.Namespace], Awaitable[int]]


def register(commands: Commands) -> None:
    accounts = commands.add_parser("accounts", help="make admins, invite, give roles, rotate keys")
    actions = accounts.add_subparsers(dest="action", required=True)

    admin = actions.add_parser("create-admin", help="make an admin; asks for the password")
    admin.add_argument("username")
    admin.add_argument("email")
    admin.add_argument(
        "--password-stdin", action="store_true", help="read the password from standard input"
    )
    admin.set_defaults(run=_run(_create_admin))

    inviting = actions.add_parser("invite", help="print an invitation, and mail it if to somebody")
    inviting.add_argument("--email", help="whom it is for; absent: for whoever has it")
    inviting.add_argument("--role", choices=_ROLES, default="user")
    inviting.set_defaults(run=_run(_invite))

    listing = actions.add_parser("list", help="list the users")
    listing.set_defaults(run=_run(_list))

    role = actions.add_parser("set-role", help="give a user another role")
    role.add_argument("username")
    role.add_argument("role", choices=_ROLES)
    role.set_defaults(run=_run(_set_role))

    for name, disabled, words in (
        ("disable", True, "shut a user out, at once"),
        ("enable", False, "let a user in again"),
    ):
        switching = actions.add_parser(name, help=words)
        switching.add_argument("username")
        switching.set_defaults(run=_run(_set_disabled), disabled=disabled)

    codes = actions.add_parser(
        "turn-off-codes", help="let in a user who lost their phone and recovery codes"
    )
    codes.add_argument("username")
    codes.set_defaults(run=_run(_turn_off_codes))

    rotating = actions.add_parser(
        "rotate-keys", help="encrypt all credentials under the newest key, while the server runs"
    )
    rotating.set_defaults(run=_run(rotate_keys))
    dropping = actions.add_parser(
        "drop-keys", help="forget keys in DATA_DIR that nothing is encrypted under any more"
    )
    dropping.set_defaults(run=_run(drop_keys))


def _run(action: _Action) -> Callable[[argparse.Namespace], int]:
    def run(chosen: argparse.Namespace) -> int:
        from web.settings import load_settings  # noqa: PLC0415 - a wrong one shows at once

        settings = load_settings()
        log_to_terminal(settings)
        return asyncio.run(_with_accounts(settings, action, chosen))

    return run


async def _with_accounts(settings: Settings, action: _Action, chosen: argparse.Namespace) -> int:
    from web.accounts_wiring import NoVenues, open_accounts  # noqa: PLC0415 - heavy
    from web.background import Background  # noqa: PLC0415
    from web.clock import SystemClock  # noqa: PLC0415

    async with (
        _candles_url(settings) as candles_url,
        open_accounts(
            settings, candles_url, clock=SystemClock(), background=Background(), probe=NoVenues()
        ) as parts,
    ):
        return await action(parts, settings, chosen)


@asynccontextmanager
async def _candles_url(settings: Settings) -> AsyncIterator[str]:
    """Yield where candles are; the embedded servers run for as long as they are needed."""
    from db.embedded.servers import embedded_servers  # noqa: PLC0415 - heavy

    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
    elif settings.accounts_url is not None:
        yield ""
    else:
        async with embedded_servers(settings.data_dir) as embedded:
            yield embedded.postgres_url


async def _create_admin(
    parts: AccountsParts, settings: Settings, chosen: argparse.Namespace
) -> int:
    from pydantic import SecretStr  # noqa: PLC0415

    from resolvers.identity.registering import Wanted, create_admin  # noqa: PLC0415

    password = await asyncio.to_thread(_asked_password, chosen.password_stdin)
    if password is None:
        print("The passwords differ.", file=sys.stderr)
        return 1
    wanted = Wanted(chosen.username, chosen.email, SecretStr(password))
    admin = await create_admin(parts.identity, wanted)
    print(f"{admin.username} is an admin.")
    return 0


def _asked_password(from_stdin: bool) -> str | None:
    """Return the password that was typed, None if it was not typed the same way twice."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    return password if getpass.getpass("Again: ") == password else None


async def _invite(parts: AccountsParts, settings: Settings, chosen: argparse.Namespace) -> int:
    from db.accounts.permissions import Role  # noqa: PLC0415
    from resolvers.identity.administration import invite  # noqa: PLC0415

    token = await invite(
        parts.identity, None, role=Role(chosen.role), email=chosen.email, origin=command_origin()
    )
    # On standard output and nowhere else: whoever has it can register.
    print(token.get_secret_value())
    return 0


async def _list(parts: AccountsParts, settings: Settings, chosen: argparse.Namespace) -> int:
    from resolvers.identity.administration import users  # noqa: PLC0415

    after = None
    while True:
        page = await users(parts.identity, None, first=_PAGE, after=after)
        for user in page:
            state = "disabled" if user.disabled_at else "" if user.email_verified_at else "new"
            print(f"{user.username}  {user.role}  {user.email}  {state}".rstrip())
        if len(page) < _PAGE:
            return 0
        after = page[-1].username


async def _set_role(parts: AccountsParts, settings: Settings, chosen: argparse.Namespace) -> int:
    from db.accounts.permissions import Role  # noqa: PLC0415
    from resolvers.identity.administration import set_role  # noqa: PLC0415

    user = await set_role(
        parts.identity, None, chosen.username, Role(chosen.role), origin=command_origin()
    )
    print(f"{user.username} has the role {chosen.role}.")
    return 0


async def _set_disabled(
    parts: AccountsParts, settings: Settings, chosen: argparse.Namespace
) -> int:
    from resolvers.identity.administration import set_disabled  # noqa: PLC0415

    user = await set_disabled(
        parts.identity, None, chosen.username, chosen.disabled, origin=command_origin()
    )
    print(f"{user.username} is {'shut out' if chosen.disabled else 'let in'}.")
    return 0


async def _turn_off_codes(
    parts: AccountsParts, settings: Settings, chosen: argparse.Namespace
) -> int:
    from resolvers.identity.administration import turn_off_codes  # noqa: PLC0415

    user = await turn_off_codes(parts.identity, None, chosen.username, origin=command_origin())
    print(f"{user.username} needs no codes any more, and is signed out.")
    return 0
