"""Work that survives a restart: queued in Redis, run at least once, by whoever runs jobs."""
