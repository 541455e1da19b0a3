"""Connections, rows, queries, migrations, embedded servers."""
