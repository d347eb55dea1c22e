"""Tokens for readers of the daemon's port: named, limited to projects if so chosen, and stored as hashes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict, replace

from mirror.errors import MirrorError, UsageError

USE_NOTED_EVERY = timedelta(minutes=10)
"""How exactly the last use of a token is recorded: writing at each request would cost more than the request."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


class Token(Struct, frozen=True):
    """A token without its secret. `projects` are patterns such as team/*, empty for every project. Times are UTC."""

    name: str
    digest: str
    projects: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def state(self, now: datetime) -> str:
        """`valid`, `revoked` or `expired`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"

    def is_use_to_note(self, now: datetime) -> bool:
        """Return True if the last recorded use is so old that one at this time is to be recorded."""
        return self.last_used_at is None or now - self.last_used_at >= USE_NOTED_EVERY


class Tokens:
    """The tokens of a home, in a file that only its owner can read. Other processes may change it at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[object, dict[str, Token]] = (None, {})

    def every(self) -> list[Token]:
        """All tokens, in the order in which they were added. Raises MirrorError if the file cannot be read."""
        return list(self._by_digest().values())

    def usable(self) -> bool:
        """Return True if there is a valid token."""
        now = _now()
        return any(token.state(now) == "valid" for token in self.every())

    def find(self, secret: str) -> Token | None:
        """The token with this secret, valid or not; None if there is none. Raises MirrorError."""
        return self._by_digest().get(_digest(secret))

    def add(self, name: str, projects: Sequence[str], days: int | None) -> str:
        """Add a token and return its secret, which is stored nowhere.

        It has the form of a W&B API key, since clients of the official SDK send it in place of one. Raises UsageError
        if the name is not valid or in use.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not a token's name: use up to 64 letters, digits and . _ @ + -")
        now = _now()
        secret = secrets.token_hex(20)
        until = None if days is None else now + timedelta(days=days)
        with self._changing() as tokens:
            if any(token.name == name and token.state(now) == "valid" for token in tokens):
                raise UsageError(
                    f"there is a token {name} already: choose another name, or `mirror token revoke {name}`"
                )
            tokens[:] = [token for token in tokens if token.name != name]
            tokens.append(Token(name, _digest(secret), tuple(projects), now, until))
        return secret

    def revoke(self, name: str) -> None:
        """Revoke a token. Raises UsageError if there is none of this name, or if it was revoked before."""
        with self._changing() as tokens:
            found = next((index for index, token in enumerate(tokens) if token.name == name), None)
            if found is None:
                known = ", ".join(token.name for token in tokens if token.revoked_at is None) or "none"
                raise UsageError(f"there is no token {name}; there are: {known}")
            if tokens[found].revoked_at is not None:
                raise UsageError(f"the token {name} was revoked on {tokens[found].revoked_at:%Y-%m-%d} already")
            tokens[found] = replace(tokens[found], revoked_at=_now())

    def note_use(self, used: Token) -> None:
        """Record that a token was used now, unless its last use was recorded a short time ago. Raises MirrorError."""
        now = _now()
        if not used.is_use_to_note(now):
            return
        with self._changing() as tokens:
            tokens[:] = [replace(token, last_used_at=now) if token.digest == used.digest else token for token in tokens]

    def _by_digest(self) -> dict[str, Token]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unreadable(self._path, error) from error
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if self._read[0] != version:
            self._read = (version, {token.digest: token for token in self._load()})
        return self._read[1]

    def _load(self) -> list[Token]:
        try:
            return [_token(found) for found in json.loads(self._path.read_text(encoding="utf-8"))["tokens"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(self._path, error) from error

    @contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """The tokens, which are written after the block. One process at a time: the folder is locked."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            tokens = self._load()
            yield tokens
            self._write(tokens)
        finally:
            os.close(folder)

    def _write(self, tokens: Sequence[Token]) -> None:
        text = json.dumps({"tokens": [_plain(token) for token in tokens]}, indent=1)
        temporary = self._path.with_name(f".{self._path.name}-{os.getpid()}")
        try:
            temporary.unlink(missing_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
                file.write(f"{text}\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            raise MirrorError(f"cannot write {self._path}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)


def _plain(token: Token) -> dict[str, object]:
    return {
        name: f"{value:%Y-%m-%dT%H:%M:%SZ}" if isinstance(value, datetime) else value
        for name, value in asdict(token).items()
    }


def _token(found: dict[str, str]) -> Token:
    times = {
        name: datetime.fromisoformat(found[name]) if found.get(name) else None
        for name in ("expires_at", "revoked_at", "last_used_at")
    }
    created = datetime.fromisoformat(found["created_at"])
    return Token(found["name"], found["digest"], tuple(found["projects"]), created, **times)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _unreadable(path: Path, error: Exception) -> MirrorError:
    reason = (isinstance(error, OSError) and error.strerror) or "it is not a file of tokens"
    return MirrorError(f"cannot read {path}: {reason}; move it away to start without tokens")
