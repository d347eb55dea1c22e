"""The client of a running daemon's control socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from mirror.errors import CommError, ConfigError, MirrorError, SyncError, TimedOut
from mirror.settings.socket_path import address

PATIENCE = 15.0
"""Seconds to wait for an answer that needs no work."""

RELOAD_PATIENCE = 120.0
"""Seconds to wait for a reload, which waits for the writer and may ask the server for projects."""

END_PATIENCE = 120.0
"""Seconds to wait for a daemon to commit, publish and end."""

GRACE = 10.0
"""Seconds after a time limit within which the daemon must report that the limit has passed."""


class Control:
    """The control socket of a running daemon."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def find(cls, path: Path) -> Control | None:
        """Return the daemon that listens at this path, or None, also for a socket that a dead daemon left."""
        if not path.exists():
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, address(path) as short:
            try:
                probe.connect(short)
            except (ConnectionRefusedError, FileNotFoundError):
                return None
            except PermissionError as error:
                raise MirrorError(f"{path} belongs to another user's daemon") from error
            except OSError:
                return None
        return cls(path)

    def status(self) -> dict[str, Any]:
        """Return the daemon's status."""
        with self._client(PATIENCE) as client:
            return dict(self._check(client.get("/status")))

    def work(
        self, action: str, paths: Sequence[str], *, since: datetime | None = None, timeout: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Run `sync`, `flush` or `ingest` and yield its events as they arrive; the last one is `done`.

        With `since` (naive UTC), a sync leaves runs that neither started nor logged since then for later.

        Raises MirrorError with the daemon's message and exit code if it could not start, or was not done after
        `timeout` seconds; in that case the daemon continues the work.
        """
        body: dict[str, Any] = {"paths": list(paths)}
        body |= {} if since is None else {"since": since.isoformat()}
        body |= {} if timeout is None else {"timeout": timeout}
        patience = None if timeout is None else timeout + GRACE
        with self._client(patience) as client, client.stream("POST", f"/{action}", json=body) as answer:
            if answer.status_code != httpx.codes.OK:
                answer.read()
                self._check(answer)
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["event"] == "error":
                    comm = event["exit_code"] == CommError.exit_code
                    failure = CommError(event["message"]) if comm else MirrorError(event["message"])
                    failure.exit_code = event["exit_code"]
                    raise failure
                yield event
                if event["event"] == "done":
                    return
        raise SyncError("the daemon stopped before it was done; what it committed stays")

    def flush_later(self, paths: Sequence[str]) -> None:
        """Request a flush without waiting for it."""
        with self._client(PATIENCE) as client:
            self._check(client.post("/flush", json={"paths": list(paths), "wait": False}))

    def publish(self) -> None:
        """Publish everything that is committed, before this returns."""
        with self._client(None) as client:
            self._check(client.post("/publish"))

    def mend(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Repair inconsistencies in the store of these projects; return what was repaired, by project."""
        with self._client(None) as client:
            return dict(self._check(client.post("/mend", json={"paths": list(paths)}))["mended"])

    def forget(self, paths: Sequence[str]) -> None:
        """Remove projects and runs from the mirror, also from the published file, before this returns."""
        with self._client(None) as client:
            answer = client.post("/forget", json={"paths": list(paths)})
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise SyncError("the daemon is of an older version that cannot remove anything; restart it")
            self._check(answer)

    def collect(self, grace: float, *, dry_run: bool) -> dict[str, int]:
        """Delete content that nothing has named for `grace` seconds; a dry run only looks. Returns what it found."""
        with self._client(None) as client:
            answer = client.post("/gc", json={"grace": grace, "dry_run": dry_run})
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise SyncError("the daemon is of an older version that stores no content; restart it")
            return dict(self._check(answer))

    def check(self) -> str | None:
        """Return the damage of the state file, which only the daemon can read; None if it is sound."""
        with self._client(None) as client:
            answer = client.post("/check")
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise SyncError("the daemon is of an older version that cannot check its files; restart it")
            problem: str | None = self._check(answer)["problem"]
            return problem

    def stop(self) -> None:
        """Stop the daemon, and wait until it has released its home. Raises TimedOut if that takes too long."""
        with self._client(PATIENCE) as client:
            self._check(client.post("/stop"))
        limit = time.monotonic() + END_PATIENCE
        while self.find(self._path) is not None:
            if time.monotonic() > limit:
                raise TimedOut(f"the daemon has not ended after {END_PATIENCE:.0f} s; see its mirror.log")
            time.sleep(0.1)

    def reload(self) -> None:
        """Make the daemon read its config again. Raises ConfigError if the config is not valid."""
        with self._client(RELOAD_PATIENCE) as client:
            self._check(client.post("/reload"))

    @contextmanager
    def _client(self, patience: float | None) -> Iterator[httpx.Client]:
        """Open a client that waits `patience` seconds for each piece of an answer, None without a limit."""
        limits = httpx.Timeout(PATIENCE, read=patience)
        try:
            with (
                address(self._path) as short,
                httpx.Client(
                    transport=httpx.HTTPTransport(uds=short), base_url="http://mirror", timeout=limits
                ) as client,
            ):
                yield client
        except httpx.TimeoutException as error:
            raise TimedOut(f"the daemon at {self._path} does not answer; it may hang or be suspended") from error
        except httpx.TransportError as error:
            raise SyncError("the daemon stopped before it was done; what it committed stays") from error

    @staticmethod
    def _check(answer: httpx.Response) -> Any:
        content = answer.json()
        if answer.is_success:
            return content
        message = content.get("message", f"the daemon answered {answer.status_code}")
        raise ConfigError(message) if content.get("exit_code") == ConfigError.exit_code else MirrorError(message)
