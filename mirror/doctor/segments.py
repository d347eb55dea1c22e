"""The segments of history: whether all are there, and whether some of them are as they were written."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mirror.doctor.findings import Finding, fail, ok, warn
from mirror.errors import StoreError
from mirror.settings.home import Home
from mirror.store import checks, reader
from mirror.store import segments as store

MOST = 20
"""How many segments are read, drawn anew each time."""

MOST_BYTES = 1_000_000_000

_ADVICE = "`mirror verify --repair` pulls what was in it again"


def check(home: Home) -> Iterator[Finding]:
    """Every segment by its size, some by their digest; files that nothing lists."""
    if not home.published.exists():
        return
    try:
        with reader.opened(home) as opened:
            listed = opened.run("SELECT path, bytes FROM store.segments WHERE retired_at IS NULL ORDER BY path")
            digests = store.digests(opened.run)
            unlisted = store.unlisted(opened, home.history)
    except StoreError:
        return  # that the file cannot be read was said before
    sample = _sample(listed)
    found = 0
    for path, size in listed:
        file = home.history / path
        problem = checks.file_problem(file, size, digests.get(path) if path in sample else None)
        if problem or (path in sample and (problem := checks.footer_problem(file))):
            found += 1
            yield fail("segments", f"{file} is {problem}" if problem != "no file" else f"{file} is missing", _ADVICE)
    if listed and not found:
        count = f"{len(listed):,} {'segment is' if len(listed) == 1 else 'segments are'} there"
        yield ok("segments", f"{count}, {len(sample):,} of them read and as written")
    if unlisted:
        count = f"{len(unlisted):,} {'file' if len(unlisted) == 1 else 'files'} in {home.history}"
        yield warn(
            "segments",
            f"{count} that the mirror does not list, as {unlisted[0]}",
            "left by a repair or a restored backup; delete them when nothing in them is needed any more",
        )


def _sample(listed: list[tuple[str, int]]) -> set[str]:
    chosen: set[str] = set()
    left = MOST_BYTES
    for path, size in random.sample(listed, min(MOST, len(listed))):
        if size <= left:
            chosen.add(path)
            left -= size
    return chosen
