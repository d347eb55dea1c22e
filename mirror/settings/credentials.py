"""Finds and stores the API key as the official client does (wandb/sdk/lib/wbauth)."""

from __future__ import annotations

import contextlib
import netrc
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mirror.addresses import FORGE_HOSTS
from mirror.errors import AuthError
from mirror.settings.netrc_text import with_entry

# From the official client's table: the hosts it now logs in to by default, and the API of each.
_UPSTREAM = {name: api for host, api in FORGE_HOSTS.items() for name in (host, f"api.{host}")}


@dataclass(frozen=True)
class Credential:
    """An API key and where it was found. Its repr never shows the key."""

    key: str = field(repr=False)
    source: str


def find(base_url: str, environ: Mapping[str, str]) -> Credential:
    """Find the key for a server: WANDB_API_KEY, otherwise the netrc entry of its host and port.

    Raises AuthError if there is none, or if it does not have the form of a key.
    """
    host = urlsplit(base_url).netloc
    if key := environ.get("WANDB_API_KEY", "").strip():
        return _checked(Credential(key, "WANDB_API_KEY"), host)
    path = netrc_path(environ)
    entries = _entries(path, environ)
    for name in (host, _UPSTREAM.get(host, host)):
        login = entries.authenticators(name) if entries else None
        if login and login[2]:
            return _checked(Credential(login[2], f"netrc {path} ({name})"), host)
    hint = ""
    if entries and (
        other := next((name for name, api in _UPSTREAM.items() if api == host and name in entries.hosts), "")
    ):
        hint = f" ({path} has one for {other}: should server.base_url be https://{other}?)"
    raise AuthError(f"no API key for {host}{hint}: run `mirror login`, `wandb login` or set WANDB_API_KEY")


def valid_form(key: str) -> bool:
    """Return True for the form of a key: 40 or more letters, digits, `_`, after a `prefix-` on premises; or a JWT."""
    if re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", key):
        return True
    return re.fullmatch(r"[\w-]{40,}", key.split("-", 1)[-1]) is not None


def store_key(base_url: str, key: str, environ: Mapping[str, str]) -> Path:
    """Write the key into netrc as `wandb login` does, and return the file.

    The file is replaced in one step and has mode 0600 afterwards; only the entry of the host changes. The entry comes
    before `default`, where programs that read from the top stop.
    Raises AuthError if the file cannot be read or written.
    """
    path = netrc_path(environ)
    host = urlsplit(base_url).netloc
    try:
        target = path.resolve()
        # Bytes, since reading as text would convert the line ends.
        old = target.read_bytes().decode() if target.exists() else ""
        _replace(target, with_entry(old, host, key))
    except (OSError, UnicodeDecodeError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        reason = (isinstance(error, OSError) and error.strerror) or reason
        raise AuthError(f"cannot write {path}: {reason}", error) from None
    return path


def netrc_path(environ: Mapping[str, str]) -> Path:
    """Return NETRC, otherwise ~/.netrc, or ~/_netrc if only that exists."""
    if named := environ.get("NETRC"):
        return Path(named).expanduser()
    home = Path(environ.get("HOME") or Path.home())
    usual, other = home / ".netrc", home / "_netrc"
    return other if other.exists() and not usual.exists() else usual


def _entries(path: Path, environ: Mapping[str, str]) -> netrc.netrc | None:
    """Return the parsed file; None if it does not exist. Raises AuthError if it cannot be read."""
    try:
        return netrc.netrc(path)
    except FileNotFoundError:
        return None
    except netrc.NetrcParseError as error:
        # The parser's message may quote a line of the file, and with it a key.
        where = f", line {error.lineno}" if error.lineno else ""
        raise AuthError(f"{path}{where}: not a valid netrc file; fix it or set WANDB_API_KEY", error) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        if not environ.get("NETRC") and isinstance(error, PermissionError | NotADirectoryError):
            return None
        raise AuthError(f"cannot read {path}: {reason}; fix it or set WANDB_API_KEY", error) from None


def _checked(credential: Credential, host: str) -> Credential:
    if valid_form(credential.key):
        return credential
    raise AuthError(
        f"the API key for {host} from {credential.source} is not valid (40 or more letters, digits and _): "
        "run `mirror login` or set WANDB_API_KEY"
    )


def _replace(path: Path, text: str) -> None:
    """Write a file that nobody else can read, then replace the old one with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # 0600 from the start
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
