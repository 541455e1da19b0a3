"""Accounts in a database of their own: MariaDB, or a schema beside the candles in PostgreSQL."""
