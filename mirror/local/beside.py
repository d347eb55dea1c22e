"""Reads the documents in `files/` beside a run's file, for what the file itself does not contain."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from mirror.errors import MirrorError
from mirror.local.files import opened
from mirror.local.values import Unreadable, check_name, value
from mirror.protocol import METADATA

CONFIG, SUMMARY, LOG = "config.yaml", "wandb-summary.json", "output.log"

_LARGEST = 64 << 20
"""The largest document that is read, in bytes: the client refuses to write one of a quarter of it."""

_MOST_NODES = 1_000_000
"""The most values of a YAML document with its aliases expanded."""

_LINE = 1 << 20
"""The longest line of console output in bytes; a longer one is split."""


class Beside(Struct):
    """Documents beside a file, and errors for those that could not be read."""

    metadata: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def signature(path: Path, *, console: bool) -> str:
    """Return the sizes and times of the files beside a run's file, as a text that changes when one of them does."""
    parts = []
    for name in (METADATA, CONFIG, SUMMARY, LOG) if console else (METADATA, CONFIG, SUMMARY):
        try:
            found = os.stat(path.parent / "files" / name)  # noqa: PTH116 - called for every file of every pass
        except OSError:
            continue
        parts.append(f"{name}:{found.st_size}:{found.st_mtime_ns}")
    return " ".join(parts)


def read(path: Path) -> Beside:
    """Read the documents beside a run's file; a missing one is empty."""
    found = Beside()
    readers: dict[str, Callable[[bytes], Any]] = {METADATA: value, CONFIG: _yaml, SUMMARY: value}
    for name, parse in readers.items():
        try:
            document = _document(path.parent / "files" / name, parse)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, Unreadable, MirrorError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            found.errors.append(f"files/{name} beside it cannot be read: {reason}")
            continue
        if name == CONFIG:
            found.config = _values(document)
        elif name == SUMMARY:
            found.summary = document
        else:
            found.metadata = document
    return found


def _document(path: Path, parse: Callable[[bytes], Any]) -> dict[str, Any]:
    with opened(path) as stream:
        content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise Unreadable(f"it is larger than {_LARGEST >> 20} MiB")
    document = parse(content) if content.strip() else {}
    if not isinstance(document, dict):
        raise Unreadable("it is not an object")
    return document


def log_size(path: Path) -> int:
    """Return the size of `output.log` in bytes; 0 if it does not exist."""
    try:
        return (path.parent / "files" / LOG).stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def log_lines(path: Path, offset: int, most: int) -> Iterator[tuple[str, int, bool]]:
    """Yield the lines of `output.log` from an offset on: text, the offset after it, and whether the line is complete.

    About `most` bytes are read. Yields nothing if the file does not exist. Raises OSError and NotReadable.
    """
    try:
        stream = opened(path.parent / "files" / LOG)
    except (FileNotFoundError, NotADirectoryError):
        return
    with stream:
        stream.seek(offset)
        end = offset + most
        while offset < end and (line := stream.readline(_LINE)):
            offset += len(line)
            ended = line.endswith(b"\n") or len(line) == _LINE
            # A progress bar overwrote its line repeatedly; the terminal showed the last version.
            text = line.rstrip(b"\r\n").rpartition(b"\r")[2]
            yield text.decode("utf-8", "replace"), offset, ended


def _values(document: dict[str, Any]) -> dict[str, Any]:
    """Unwrap the values of a config, which the client writes as `key: {desc: ..., value: ...}`."""
    return {
        name: entry["value"]
        for name, entry in document.items()
        if isinstance(entry, dict) and "value" in entry and entry.keys() <= {"value", "desc"}
    }


def _yaml(content: bytes) -> Any:
    # 15 ms to import, and few runs lack their config.
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Loads only plain values. `1e-05`, as wandb-core writes it, is a number only since YAML 1.2."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))
    try:
        return _plain(yaml.load(content, Loader=Loader), 0, [0])  # noqa: S506 - only plain values
    except RecursionError as error:
        raise Unreadable("it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"it is not YAML ({str(error).splitlines()[0]})") from error


def _plain(node: Any, depth: int, count: list[int]) -> Any:
    """Convert to JSON's types. Aliases are expanded, so a small document can be huge or endless."""
    count[0] += 1
    if depth > 100 or count[0] > _MOST_NODES:
        raise Unreadable("it is nested too deeply, or too large with its aliases expanded")
    if isinstance(node, dict):
        check_name(*map(str, node))
        return {str(name): _plain(entry, depth + 1, count) for name, entry in node.items()}
    if isinstance(node, list | tuple | set):
        return [_plain(entry, depth + 1, count) for entry in node]
    if isinstance(node, bytes):
        return node.decode("utf-8", "replace")
    if isinstance(node, date):
        return node.isoformat()
    if isinstance(node, int | float | str) or node is None:
        return node
    return str(node)


def fill(document: dict[str, Any], more: dict[str, Any]) -> None:
    """Add to `document` the entries of `more` that it lacks, also in nested objects, except typed ones (`_type`)."""
    for name, entry in more.items():
        current = document.get(name)
        if name not in document:
            document[name] = entry
        elif isinstance(current, dict) and isinstance(entry, dict) and "_type" not in current and "_type" not in entry:
            fill(current, entry)
