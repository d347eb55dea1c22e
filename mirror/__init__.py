"""A complete local mirror of Weights & Biases projects in DuckDB."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mirror.errors import CommError, FilterError, MirrorError, StoreError
from mirror.home import Home

if TYPE_CHECKING:
    import duckdb

__all__ = ["CommError", "FilterError", "MirrorError", "StoreError", "connect"]


def connect() -> duckdb.DuckDBPyConnection:
    """Open the published file read-only, as a DuckDB connection of its own.

    It shows one consistent snapshot; connect again for a newer one, after closing this one. Raises StoreError when
    nothing was mirrored yet.
    """
    import duckdb

    published = Home.find(os.environ).published
    if not published.exists():
        raise StoreError(f"there is no {published}; run `mirror sync` first")
    return duckdb.connect(str(published), read_only=True)
