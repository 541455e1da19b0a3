"""Backfill: durable jobs that close the holes of a stored series."""
