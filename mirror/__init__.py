"""A complete local mirror of Weights & Biases projects in DuckDB.

import mirror
api = mirror.Api()
for run in api.runs("team/project", {"config.lr": {"$gt": 0.01}}):
    print(run.name, run.summary["loss"])
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mirror.errors import CommError, FilterError, MirrorError, NotMirrored, StoreError
from mirror.settings.home import Home

if TYPE_CHECKING:
    import duckdb

    from mirror.api import Api, Run, Runs

__all__ = [
    "Api",
    "CommError",
    "FilterError",
    "MirrorError",
    "NotMirrored",
    "Run",
    "Runs",
    "StoreError",
    "connect",
]

_LAZY = ("Api", "Run", "Runs")


def connect() -> duckdb.DuckDBPyConnection:
    """Open the published file read-only and return a new DuckDB connection.

    It shows one consistent snapshot; to see a newer one, close it and connect again. Raises StoreError if nothing is
    mirrored yet.
    """
    from mirror.snapshot.connection import open_plain

    return open_plain(Home.find(os.environ).published, relations_only=True)


def __getattr__(name: str) -> Any:
    """Import the classes of the Python API when they are first used."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module("mirror.api"), name)
    raise AttributeError(f"module 'mirror' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
