"""Move a store in a process of its own, in small pieces, until it is done or killed."""

import asyncio
import sys

from db.moving import move
from web.bootstrap import SQL


def tell(_: int) -> None:
    sys.stdout.write("piece\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(move(sys.argv[1], sys.argv[2], SQL, piece=int(sys.argv[3]), advanced=tell))
