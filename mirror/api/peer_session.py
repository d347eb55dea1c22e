"""The session of an `Api` that reads a mirror on another machine: it only reads."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.api.session import Result, Session
from mirror.errors import ArgumentError, CommError, StoreError
from mirror.peer import Connection, Peer, connect
from mirror.peer.link import Link
from mirror.settings.home import Home
from mirror.snapshot import facts
from mirror.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from mirror.remote.client import Server
    from mirror.settings.settings import Settings


class PeerSession(Session):
    """A mirror on another machine, in place of a home. Nothing is written, and no W&B server is asked."""

    def __init__(self, peer: Peer, environ: Mapping[str, str], given: Mapping[str, object] | None = None) -> None:
        """Connect to nothing yet. Raises ArgumentError if one of the `given` arguments of `Api` is not None."""
        if wrong := [name for name, value in (given or {}).items() if value is not None]:
            raise ArgumentError(f"{wrong[0]} does not go with url=: an Api of another machine's mirror only reads it")
        # No folder of this machine; messages that would name one name the mirror.
        super().__init__(Home(Path(str(peer)), Path(str(peer))), environ)
        self.peer = peer
        self._link = Link(peer)
        self._lock = threading.Lock()
        self._newest: Connection | None = None

    def __str__(self) -> str:
        return f"the mirror at {self.peer}"

    def open_snapshot(self) -> Snapshot:
        """Open the newest snapshot. Raises CommError, AuthError and StoreError."""
        self._newest = connect(self.peer, self._link)
        return Snapshot(self.home, self._newest.as_duckdb())

    @cached_property
    def settings(self) -> Settings:
        """The default settings, with the address of the server that is mirrored."""
        from mirror.settings.settings import load

        settings = load(Home(Path(os.devnull), Path(os.devnull)), {**self.environ, "WANDB_BASE_URL": ""}, ())
        found = facts.latest_server(self._connection.as_duckdb())
        return replace(settings, server=replace(settings.server, base_url=found)) if found else settings

    def local(self, content: Path | None) -> Path | None:
        """Return a copy of mirrored content; None if it was deleted since the snapshot was published.

        It is in a temporary folder, which is deleted with the Api. Raises CommError, and StoreError if it cannot be
        written.
        """
        if content is None:
            return None
        copy = self._copies / content.name
        with self._lock:
            if not copy.exists() and not self._copied(content, copy):
                return None
        return copy

    @cached_property
    def _copies(self) -> Path:
        folder = tempfile.mkdtemp(prefix="mirror-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _copied(self, content: Path, copy: Path) -> bool:
        # In a home, the path of a content is made of its digest.
        part = copy.with_suffix(".part")
        try:
            with part.open("wb") as file:
                found = self._link.content(f"{content.parent.name}{content.name}", file)
            if found:
                part.replace(copy)
        except OSError as error:
            raise StoreError(f"cannot write {copy}: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)
        return found

    @property
    def _connection(self) -> Connection:
        if self._newest is None:
            self._newest = connect(self.peer, self._link)
        return self._newest.cursor()

    def ask(self, work: Callable[[Server], Awaitable[Result]]) -> Result:
        """Raise CommError."""
        del work
        raise self._refused()

    @property
    def api_key(self) -> None:
        """None: it asks no W&B server."""
        return

    @property
    def official(self) -> Any:
        """Raise CommError."""
        raise self._refused()

    def pull(self, paths: Sequence[str], *, afresh: bool = False) -> None:
        """Raise CommError."""
        del paths, afresh
        raise CommError(f"{self} is only read: it pulls by itself, or with `mirror sync` on its machine")

    def _refused(self) -> CommError:
        return CommError(
            f"{self} does not hold this, or it is a change; mirror.Api(url=...) only reads what is mirrored, "
            "use wandb.Api() for the rest"
        )
