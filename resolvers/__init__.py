"""One plain async function per use, and the dataloaders; no GraphQL types."""
