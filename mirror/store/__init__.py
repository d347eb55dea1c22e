"""Owns the DuckDB and Parquet files of a mirror; knows nothing of HTTP."""
