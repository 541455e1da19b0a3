"""Live streams: one upstream of each for all processes, and what is heard of it."""
