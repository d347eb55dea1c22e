"""Checks of the segments of history: whether all exist, and whether a sample of them is undamaged."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mirror.doctor.findings import Finding, fail, ok, warn
from mirror.errors import StoreError
from mirror.settings.home import Home
from mirror.store import files, reader, segment_checks
from mirror.store import segment_files as store

MOST = 20
"""The number of segments that are read, chosen at random each time."""

MOST_BYTES = 1_000_000_000

_ADVICE = "`mirror verify --repair` pulls its content again"


def check(home: Home) -> Iterator[Finding]:
    """Check every segment by its size and some by their digest; report files that the mirror does not list."""
    if not home.published.exists():
        return
    try:
        with reader.opened(home) as opened:
            listed = store.sizes(opened)
            digests = store.digests(opened.run)
            unlisted = store.unlisted(opened, home.history)
    except StoreError:
        return  # an earlier check reports that the file cannot be read
    sample = _sample(listed)
    damaged = 0
    for path, size in listed:
        file = home.history / path
        problem = files.problem(file, size, digests.get(path) if path in sample else None)
        if problem or (path in sample and (problem := segment_checks.footer_problem(file))):
            damaged += 1
            yield fail("segments", f"{file} is {problem}" if problem != "no file" else f"{file} is missing", _ADVICE)
    if listed and not damaged:
        count = f"{len(listed):,} {'segment exists' if len(listed) == 1 else 'segments exist'}"
        yield ok("segments", f"{count}; {len(sample):,} of them were read and are undamaged")
    if unlisted:
        count = f"{len(unlisted):,} {'file' if len(unlisted) == 1 else 'files'} in {home.history}"
        yield warn(
            "segments",
            f"{count} that the mirror does not list, such as {unlisted[0]}",
            "left by a repair or a restored backup; delete them once nothing in them is needed",
        )


def _sample(listed: list[tuple[str, int]]) -> set[str]:
    chosen: set[str] = set()
    left = MOST_BYTES
    for path, size in random.sample(listed, min(MOST, len(listed))):
        if size <= left:
            chosen.add(path)
            left -= size
    return chosen
