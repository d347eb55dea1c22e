"""The DuckDB and Parquet files of a mirror: migrations, transactions, segments, publishing. Knows no HTTP."""
