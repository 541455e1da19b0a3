"""What this process is called where several share something."""

from __future__ import annotations

import os
import secrets
import socket


def process_name() -> str:
    """Return a name for this process that no other has, and that tells people where it is."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
