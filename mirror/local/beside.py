"""What lies beside a run's file, in `files/`: read where the file itself does not hold it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from mirror.errors import MirrorError
from mirror.local.files import opened
from mirror.local.values import Unreadable, check_name, value

METADATA, CONFIG, SUMMARY, LOG = "wandb-metadata.json", "config.yaml", "wandb-summary.json", "output.log"

_LARGEST = 64 << 20
"""A document of more bytes is not read: the client refuses to write one of a quarter of it."""

_MOST_NODES = 1_000_000
"""Values of a YAML document with its aliases written out."""

_LINE = 1 << 20
"""Bytes of a line of console output; a longer one is told as several."""


@dataclass
class Beside:
    """Documents beside a file, and what could not be read of them."""

    metadata: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def signature(path: Path, *, console: bool) -> str:
    """The sizes and times of what lies beside a run's file; another one where something of it has changed."""
    parts = []
    for name in (METADATA, CONFIG, SUMMARY, LOG) if console else (METADATA, CONFIG, SUMMARY):
        try:
            found = os.stat(path.parent / "files" / name)  # noqa: PTH116 - called for every file of every pass
        except OSError:
            continue
        parts.append(f"{name}:{found.st_size}:{found.st_mtime_ns}")
    return " ".join(parts)


def read(path: Path) -> Beside:
    """The documents beside a run's file; one that is not there is empty."""
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
        raise Unreadable(f"it has more than {_LARGEST >> 20} MiB")
    document = parse(content) if content.strip() else {}
    if not isinstance(document, dict):
        raise Unreadable("it holds no object")
    return document


def log_size(path: Path) -> int:
    """The bytes of `output.log`, 0 where there is none."""
    try:
        return (path.parent / "files" / LOG).stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def log_lines(path: Path, offset: int, most: int) -> Iterator[tuple[str, int, bool]]:
    """Lines of `output.log` from an offset on: text, the offset behind it, and whether the line is ended.

    At most so many bytes are read. Nothing where there is no such file. Raises OSError and NotReadable.
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
            # A progress bar wrote over its line again and again; the terminal showed the last one.
            text = line.rstrip(b"\r\n").rpartition(b"\r")[2]
            yield text.decode("utf-8", "replace"), offset, ended


def _values(document: dict[str, Any]) -> dict[str, Any]:
    """The config without what the client writes around each value: `key: {desc: ..., value: ...}`."""
    return {
        name: entry["value"]
        for name, entry in document.items()
        if isinstance(entry, dict) and "value" in entry and entry.keys() <= {"value", "desc"}
    }


def _yaml(content: bytes) -> Any:
    # 15 ms to import, and few runs lack their config.
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Plain values alone. `1e-05`, as wandb-core writes it, is a number only since YAML 1.2."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))
    try:
        return _plain(yaml.load(content, Loader=Loader), 0, [0])  # noqa: S506 - of plain values alone
    except RecursionError as error:
        raise Unreadable("it is nested too deep") from error
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"it is no YAML ({str(error).splitlines()[0]})") from error


def _plain(node: Any, depth: int, count: list[int]) -> Any:
    """The values that JSON has. An alias stands for all that it names, so that a small document can be without end."""
    count[0] += 1
    if depth > 100 or count[0] > _MOST_NODES:
        raise Unreadable("it is nested too deep or without end")
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
    """Add what a document lacks, also within its objects, but for those of a `_type`, which are one value."""
    for name, entry in more.items():
        here = document.get(name)
        if name not in document:
            document[name] = entry
        elif isinstance(here, dict) and isinstance(entry, dict) and "_type" not in here and "_type" not in entry:
            fill(here, entry)
