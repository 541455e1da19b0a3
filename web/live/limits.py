"""How much one client, one address and one process may ask of live transport."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """Times are in seconds, sizes in bytes."""

    init_timeout: float = 3.0
    """From an accepted socket to its `connection_init`."""
    ping_interval: float = 20.0
    """Silence of a client after which it is asked whether it is there."""
    pong_timeout: float = 10.0
    """Silence after that with which its socket is closed."""
    heartbeat: float = 10.0
    """Between two signs of life on an HTTP stream."""

    connections: int = 10_000
    """Sockets and streams of the process."""
    connections_per_address: int = 4_000
    operations: int = 100
    """Of one socket, at a time."""
    message_bytes: int = 1_000_000
    """Of one message from a client."""
    id_length: int = 256
    """Characters of an operation's id, which comes back with every message."""

    outbox_count: int = 1_000
    """Messages that wait for one client to read."""
    outbox_bytes: int = 1_000_000
    """Of these messages together. A larger one has to wait alone."""
    stall: float = 10.0
    """Without any progress of a client that has something to read."""
