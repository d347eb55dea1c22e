"""What a daemon imports, before it is forked; see `tests.forked`. No thread may run afterwards."""

from __future__ import annotations

import threading

import duckdb
import pyarrow.compute
import pyarrow.parquet
import uvicorn.lifespan.on
import uvicorn.protocols.http.h11_impl
import watchfiles

import mirror.cli.app
import mirror.cli.daemon
import mirror.daemon.main

__all__ = ["duckdb", "mirror", "pyarrow", "uvicorn", "watchfiles"]

assert threading.active_count() == 1
