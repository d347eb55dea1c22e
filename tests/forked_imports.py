# ruff: noqa: E402 - the modules of a user's process are kept out before anything is imported
"""What a daemon imports, before it is forked; see `tests.forked`. No thread may run afterwards."""

from __future__ import annotations

import threading

from mirror.cli import unneeded

unneeded.keep_out()

import anyio._backends._asyncio
import duckdb
import pyarrow.acero
import pyarrow.compute
import pyarrow.parquet
import uvicorn.lifespan.on
import uvicorn.protocols.http.h11_impl
import watchfiles

import mirror.cli.app
import mirror.cli.daemon
import mirror.daemon.main
import mirror.remote.loop_transport
import mirror.serve.app

__all__ = ["anyio", "duckdb", "mirror", "pyarrow", "uvicorn", "watchfiles"]

assert threading.active_count() == 1
