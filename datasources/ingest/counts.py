"""What ingestion counts about itself, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasources.ingest.stream import Lag


@dataclass(slots=True)
class IngestCounts:
    """Of one process, since it started, but *lag*, which is of the stream that all share."""

    published: int = 0
    """Trades put into the stream."""
    shed: int = 0
    """Trades that there was no room for; each time leaves a hole."""
    refused: int = 0
    """Batches with a trade that cannot be true; each leaves a hole."""
    filled: int = 0
    """Trades read from a provider's past."""
    stored: int = 0
    """Trades taken from the stream and committed, those told twice included."""
    buried: int = 0
    """Entries put among the dead letters."""
    publishing: int = 0
    """Sources that this process publishes at the moment."""
    bar_delay_ms: int = 0
    """From the end of the newest minute to its commit, by the provider's clock, the last time."""
    lag: Lag = field(default_factory=Lag)
