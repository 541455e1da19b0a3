"""Who asks, what they may do, and what is theirs: one plain function for each use."""
