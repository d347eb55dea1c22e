"""Talks to a W&B server over GraphQL; knows nothing of DuckDB."""
