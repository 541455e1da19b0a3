"""A benchmark of live bars over WebSocket, beside its peers in one run, and a soak."""
