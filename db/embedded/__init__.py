"""A real PostgreSQL and a real Valkey out of wheels, run for as long as somebody uses them.

`servers.embedded_servers` is the door. `keeper` is the process that owns both servers; it imports
neither asyncpg nor redis, so that it starts in a blink: keep this file free of imports.
"""
