"""Bars in files: what a CSV or Parquet file says, and how it comes into the store and out of it."""
