"""Where bars come from: the chain and its sources, the cheapest first."""
