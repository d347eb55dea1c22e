"""Everything a pass needs, opened from the settings and closed again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from mirror.addresses import app_url
from mirror.errors import AuthError
from mirror.remote.client import RetryPolicy, Server
from mirror.settings import credentials
from mirror.settings.home import Home
from mirror.settings.settings import Settings, configured_projects
from mirror.store.records import ProjectKey
from mirror.sync.context import Context, Progress, Scope, Silent
from mirror.sync.early import EarlyRecords

if TYPE_CHECKING:
    # The store is imported when it is opened: DuckDB's import takes as long as an answer of the server.
    from mirror.store.sharing import Sharing
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
        sync.artifacts.listed,
        sync.reports,
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
        retry=RetryPolicy(seconds=max(RetryPolicy().seconds, TIMES_TIMEOUT * server.timeout)),
    )


@asynccontextmanager
async def open_context(
    home: Home,
    settings: Settings,
    environ: Mapping[str, str],
    progress: Progress | None = None,
    *,
    key_needed: bool = True,
    expected: Iterable[ProjectKey] = (),
) -> AsyncIterator[Context]:
    """Open server and store; publish the commits and close both at the end.

    If nothing is mirrored yet, records of the `expected` projects are requested while the store is opened. Raises
    AuthError, StoreBusy (another process writes to this home) or StoreError.
    """
    server = connect(settings, environ, key_needed=key_needed)
    scope = scope_of(settings)
    early: dict[ProjectKey, EarlyRecords] = {}
    if not home.state.exists():
        early = {project: EarlyRecords(server, project, scope.filters) for project in expected}
    try:
        named = tuple(configured_projects(home, environ))
        with ExitStack() as stack:
            writer = await asyncio.to_thread(stack.enter_context, open_writer(home, settings))
            # A pass takes what it uses out of the dictionary.
            yield Context(server, writer, scope, progress or Silent(), configured=named, early=dict(early))
    finally:
        for requested in early.values():
            await requested.close()
        await server.close()


def sharing(settings: Settings) -> Sharing | None:
    """Return who else may read what is published; None if the config does not say."""
    from mirror.store.sharing import Sharing

    publish = settings.publish
    return Sharing(publish.mode or 0o640, publish.group) if publish.mode or publish.group is not None else None


@contextmanager
def open_writer(home: Home, settings: Settings) -> Iterator[Writer]:
    """Open only the store, for work that needs no server. Raises StoreBusy or StoreError."""
    from mirror.store.store import Store
    from mirror.sync.writer import Writer

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
