"""The outside world: one file or folder per provider, and the contract they all keep."""
