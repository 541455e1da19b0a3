"""A process that uses the embedded servers of a directory until its standard input closes.

It prints one line of JSON once it has both: what it was given, and which servers answered.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from db.embedded.servers import embedded_servers


async def main(directory: Path) -> None:
    """Use the servers; a word on standard input does not matter, its end does."""
    async with embedded_servers(directory) as servers:
        connection = await asyncpg.connect(servers.postgres_url)
        redis = Redis.from_url(servers.redis_url)
        pid_file = await connection.fetchval("SELECT pg_read_file('postmaster.pid')")
        answered = {
            "postgres_url": servers.postgres_url,
            "redis_url": servers.redis_url,
            "postmaster": int(pid_file.split()[0]),
            "valkey": (await redis.info("server"))["process_id"],
        }
        sys.stdout.write(f"{json.dumps(answered)}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        await redis.aclose()
        await connection.close()


if __name__ == "__main__":
    # Whoever runs the tests in the background may have it ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(main(Path(sys.argv[1])))
