"""Everything a pass needs, opened from the settings and closed again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from mirror.addresses import app_url
from mirror.errors import AuthError
from mirror.remote.client import RetryPolicy, Server
from mirror.settings import credentials
from mirror.settings.home import Home
from mirror.settings.settings import Settings
from mirror.store.store import Store
from mirror.sync.context import Context, Progress, Scope, Silent
from mirror.sync.writer import Writer

TIMES_TIMEOUT = 6
"""The least time for a question and its smaller forms, so that with any `server.timeout` one bad run is found out."""


def scope_of(settings: Settings) -> Scope:
    """What the settings say is to be mirrored of each project."""
    sync = settings.sync
    return Scope(
        sync.filters,
        sync.history,
        sync.system_metrics,
        sync.reconcile_interval,
        sync.metadata,
        sync.console,
        sync.files,
    )


def connect(settings: Settings, environ: Mapping[str, str], *, key_needed: bool = True) -> Server:
    """A client with the key that the environment or netrc gives.

    Raises AuthError when there is none, unless a client will do that the server does not know.
    """
    server = settings.server
    try:
        credential = credentials.find(server.base_url, environ)
        key, source = credential.key, credential.source
    except AuthError:
        if key_needed:
            raise
        key, source = "", ""
    return Server(
        server.base_url,
        key,
        key_source=source,
        timeout=server.timeout,
        max_concurrency=server.max_concurrency,
        app_url=app_url(server.base_url, environ),
        retry=RetryPolicy(seconds=max(RetryPolicy.seconds, TIMES_TIMEOUT * server.timeout)),
    )


@asynccontextmanager
async def open_context(
    home: Home,
    settings: Settings,
    environ: Mapping[str, str],
    progress: Progress | None = None,
    *,
    key_needed: bool = True,
) -> AsyncIterator[Context]:
    """Open server and store; close both, with what was committed published by then.

    Raises AuthError, StoreBusy (another process writes to this home) or StoreError.
    """
    server = connect(settings, environ, key_needed=key_needed)
    try:
        with open_writer(home, settings) as writer:
            yield Context(server, writer, scope_of(settings), progress or Silent())
    finally:
        await server.close()


@contextmanager
def open_writer(home: Home, settings: Settings) -> Iterator[Writer]:
    """Open just the store, for work that needs no server. Raises StoreBusy or StoreError."""
    store = Store.open(home, tail_values=settings.store.tail_values, storage_version=settings.publish.storage_version)
    try:
        writer = Writer(store, settings.publish.min_interval)
        try:
            yield writer
        finally:
            writer.close()
    finally:
        store.close()
