"""How long the parts of ingestion wait, and how much they take at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IngestPacing:
    """Seconds by the clock of the event loop."""

    linger: float = 0.1
    """In which trades are gathered before they are put into the stream."""
    retry: float = 0.5
    """Until a stream that is full, or a server that is away, is tried again."""
    poll: float = 5.0
    """Between two questions to a provider that tells trades only when asked."""
    late: float = 2.0
    """After which a provider's past has what was traded."""
    patrol: float = 300.0
    """Between two looks for holes; what is younger may be on its way."""
    look: float = 1.0
    """Between two looks for a source that nobody publishes."""
    renew: float = 1.0
    """Between two renewals of leases; several must fit into a lease."""
    lease: float = 3.0
    """Without a renewal, after which another process publishes a source."""
    batch: float = 0.2
    """In which what comes is gathered for one transaction."""
    rows: int = 20_000
    """Trades after which it is not waited for more."""
    claim: float = 5.0
    """Between two looks for entries that a reader left behind."""
    idle: float = 15.0
    """Without a word, after which a reader is taken for dead."""
    sample: float = 5.0
    """Between two looks at how much is waiting."""


INGEST_PACING = IngestPacing()
