"""Exports the mirror as Delta Lake tables, one for each relation, for engines that do not read DuckDB."""
