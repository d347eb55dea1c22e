"""History rows of a run's files as the client sends them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mirror.local import blocks, files
from mirror.local.reading import Lines, Reading
from mirror.local.run import apply
from mirror.local.values import Unreadable
from mirror.local.wire import Malformed
from mirror.remote.lenient import loads

MOST_LINE = 10 << 20
"""Bytes of a line above which the client sends none (`FileStreamMaxLineBytes` in github:wandb/wandb)."""


def behind(paths: Sequence[Path], step: int) -> Iterator[tuple[int, str]]:
    """Rows behind a step by rising step, each with its line; those that the client would not send are left out.

    `paths` are the run's files in the order of its starts. Raises OSError and NotReadable.
    """
    last = step
    reading = Reading()
    for path, limit in zip(paths, _limits(paths), strict=True):
        for at, line in _lines(path, reading):
            if last < at <= limit and len(line) <= MOST_LINE and _is_sound(line):
                last = at
                yield at, line


def _limits(paths: Sequence[Path]) -> list[int]:
    """The highest step that counts of each file: a later start that was rewound takes away what lies behind."""
    limits = [2**63] * len(paths)
    if len(paths) > 1:
        reading = Reading()
        for index, path in enumerate(paths):
            for _ in _lines(path, reading):
                pass
            if (cut := reading.cut) is not None:
                reading.cut = None
                limits[:index] = [min(limit, cut) for limit in limits[:index]]
    return limits


def _lines(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    """Every row of one file, behind those that `reading` has seen of its run."""
    shift: int | None = None
    with files.opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        for framed in blocks.records(stream, 0, size, blocks.Tally()):
            lines = Lines(sent=[])
            try:
                shift = apply(reading, framed.payload, lines, shift)
            except (Unreadable, Malformed, IndexError):
                # Told when the file was read to be compared.
                continue
            yield from lines.sent or ()


def _is_sound(line: str) -> bool:
    try:
        loads(line)
    except (ValueError, RecursionError):
        return False
    return True
