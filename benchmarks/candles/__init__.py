"""How fast candle queries are over HTTP, beside other servers and the limit of the same run."""
