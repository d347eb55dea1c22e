"""A complete local mirror of Weights & Biases projects in DuckDB.

import mirror
api = mirror.Api()
for run in api.runs("team/project", {"config.lr": {"$gt": 0.01}}):
    print(run.name, run.summary["loss"])
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, overload

from mirror.errors import ArgumentError, CommError, FilterError, MirrorError, NotMirrored, StoreError
from mirror.settings.home import Home

if TYPE_CHECKING:
    import duckdb

    from mirror.api import Api, Run, Runs
    from mirror.peer import Connection

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


@overload
def connect() -> duckdb.DuckDBPyConnection: ...
@overload
def connect(url: str, token: str | None = None) -> Connection: ...
def connect(url: str | None = None, token: str | None = None) -> duckdb.DuckDBPyConnection | Connection:
    """Open the published file read-only and return a new DuckDB connection.

    With a `url`, such as "https://mirror.example.org", a connection to the mirror there is returned, with the methods
    that read; the `token` may also be in MIRROR_TOKEN. Either shows one consistent snapshot; to see a newer one, close
    it and connect again. Raises StoreError if nothing is mirrored yet, CommError if the other machine cannot be
    reached, AuthError if it refuses the token.
    """
    if url is not None:
        from mirror.peer import Peer
        from mirror.peer import connect as connect_to

        return connect_to(Peer.of(url, token))
    if token is not None:
        raise ArgumentError("token= is for a mirror on another machine: give its url, too")
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
