"""From trades to stored minutes: publishers put trades into a Redis stream, writers store them."""
