"""How a command talks to a running daemon."""

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
"""Seconds in which a daemon answers what needs no work."""

RELOAD_PATIENCE = 120.0
"""The same for a reload, which waits for the writer and may ask the server for projects."""

END_PATIENCE = 120.0
"""Seconds that a daemon may take to commit, publish and end."""

GRACE = 10.0
"""Seconds more than a time limit that the daemon has to tell that it was passed."""


class Control:
    """The control socket of a running daemon."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def find(cls, path: Path) -> Control | None:
        """The daemon that listens at this path, or None when none does; a socket left by a dead one counts as none."""
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
        """What the daemon is and does."""
        with self._client() as client:
            return dict(self._check(client.get("/status")))

    def work(
        self, action: str, paths: Sequence[str], *, since: datetime | None = None, timeout: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Run `sync`, `flush` or `ingest` and yield its events as they come; the last one is `done`.

        With `since` (naive UTC), a sync leaves runs that neither began nor logged from then on for later.

        Raises MirrorError with the daemon's message and exit code when it could not even start, or was not done after
        `timeout` seconds; the daemon goes on with it then.
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
        """Ask for a flush and don't wait for it."""
        with self._client() as client:
            self._check(client.post("/flush", json={"paths": list(paths), "wait": False}))

    def publish(self) -> None:
        """Have everything that is committed shown to readers before this returns."""
        with self._client(None) as client:
            self._check(client.post("/publish"))

    def mend(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Have what disagrees within the store of these projects brought in line; what was done, by project."""
        with self._client(None) as client:
            return dict(self._check(client.post("/mend", json={"paths": list(paths)}))["mended"])

    def check(self) -> str | None:
        """What is wrong with the state file, which only the daemon can read; None if nothing."""
        with self._client(None) as client:
            answer = client.post("/check")
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise SyncError("the daemon is of a version that does not check its files; start it again")
            problem: str | None = self._check(answer)["problem"]
            return problem

    def stop(self) -> None:
        """Ask the daemon to stop, and wait until it has let go of its home. Raises TimedOut when it takes too long."""
        with self._client() as client:
            self._check(client.post("/stop"))
        limit = time.monotonic() + END_PATIENCE
        while self.find(self._path) is not None:
            if time.monotonic() > limit:
                raise TimedOut(f"the daemon has not ended after {END_PATIENCE:.0f} s; look into its mirror.log")
            time.sleep(0.1)

    def reload(self) -> None:
        """Have the daemon read its config again. Raises ConfigError when it refuses it."""
        with self._client(RELOAD_PATIENCE) as client:
            self._check(client.post("/reload"))

    @contextmanager
    def _client(self, patience: float | None = PATIENCE) -> Iterator[httpx.Client]:
        """A client that waits so long for a piece of an answer; None for ever."""
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
