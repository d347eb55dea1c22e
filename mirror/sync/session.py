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
from mirror.store.sharing import Sharing
from mirror.store.store import Store
from mirror.sync.context import Context, Progress, Scope, Silent
from mirror.sync.writer import Writer

TIMES_TIMEOUT = 6
"""Minimum retry time of a request, in `server.timeout`s: enough to identify one bad run by smaller requests."""


def scope_of(settings: Settings) -> Scope:
    """Return what the settings select of each project."""
    sync = settings.sync
    return Scope(
        sync.filters,
        sync.history,
        sync.system_metrics,
        sync.reconcile_interval,
        sync.metadata,
        sync.console,
        sync.files.listed,
    )


def connect(settings: Settings, environ: Mapping[str, str], *, key_needed: bool = True) -> Server:
    """Return a client with the key from the environment or netrc.

    Raises AuthError if there is none, unless `key_needed` is off and the client may be anonymous.
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
    """Open server and store; publish the commits and close both at the end.

    Raises AuthError, StoreBusy (another process writes to this home) or StoreError.
    """
    server = connect(settings, environ, key_needed=key_needed)
    try:
        with open_writer(home, settings) as writer:
            yield Context(server, writer, scope_of(settings), progress or Silent())
    finally:
        await server.close()


def sharing(settings: Settings) -> Sharing | None:
    """Return who else may read what is published; None if the config does not say."""
    publish = settings.publish
    return Sharing(publish.mode or 0o640, publish.group) if publish.mode or publish.group is not None else None


@contextmanager
def open_writer(home: Home, settings: Settings) -> Iterator[Writer]:
    """Open only the store, for work that needs no server. Raises StoreBusy or StoreError."""
    store = Store.open(
        home,
        tail_values=settings.store.tail_values,
        storage_version=settings.publish.storage_version,
        sharing=sharing(settings),
    )
    try:
        writer = Writer(store, settings.publish.min_interval)
        try:
            yield writer
        finally:
            writer.close()
    finally:
        store.close()
