"""Reads the history rows of a run's files, as the client sends them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mirror.local import blocks, files
from mirror.local.protobuf import Malformed
from mirror.local.reading import Lines, Reading
from mirror.local.run import apply
from mirror.local.values import Unreadable
from mirror.wandb_json import loads

MOST_LINE = 10 << 20
"""The client does not send lines of more bytes than this (`FileStreamMaxLineBytes` in github:wandb/wandb)."""


class Rows:
    """The rows of a run's files after a step. `left_out` counts those that the client would not send either."""

    def __init__(self, paths: Sequence[Path], step: int) -> None:
        """`paths` are the run's files in the order of its starts."""
        self._paths = paths
        self._step = step
        self.left_out = 0

    def __iter__(self) -> Iterator[str]:
        """Their lines in ascending order of steps. Raises OSError and NotReadable."""
        last = self._step
        reading = Reading()
        for path, limit in zip(self._paths, _limits(self._paths), strict=True):
            for at, line in _lines(path, reading, last):
                if not last < at <= limit:
                    continue
                if len(line) > MOST_LINE or not _is_sound(line):
                    self.left_out += 1
                    continue
                last = at
                yield line


def _limits(paths: Sequence[Path]) -> list[int]:
    """The highest step to use from each file: a later start that was rewound drops the rows after its step."""
    limits = [2**63] * len(paths)
    if len(paths) > 1:
        reading = Reading()
        for index, path in enumerate(paths):
            for _ in _lines(path, reading, 2**63):
                pass
            if (cut := reading.cut) is not None:
                reading.cut = None
                limits[:index] = [min(limit, cut) for limit in limits[:index]]
    return limits


def _lines(path: Path, reading: Reading, step: int) -> Iterator[tuple[int, str]]:
    """The rows of one file after a step; `reading` has already read the run's earlier files."""
    shift: int | None = None
    with files.opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        for framed in blocks.records(stream, 0, size, blocks.Tally()):
            lines = Lines(sent=[], behind=step)
            try:
                shift = apply(reading, framed.payload, lines, shift)
            except (Unreadable, Malformed, IndexError):
                # Reported when the file was read for the comparison.
                continue
            yield from lines.sent or ()


def _is_sound(line: str) -> bool:
    try:
        loads(line)
    except (ValueError, RecursionError):
        return False
    return True
