"""Checks of the content of files: whether all of it exists, and whether a sample of it is undamaged."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mirror.doctor.findings import Finding, fail, ok
from mirror.errors import StoreError
from mirror.settings.home import Home
from mirror.store import contents, files, reader
from mirror.store.blobs import Blobs

MOST = 100
"""The number of contents that are read, chosen at random each time."""

MOST_BYTES = 100_000_000
"""Larger contents are not read; `mirror verify --deep` reads all."""

MOST_NAMED = 3

_ADVICE = "`mirror verify --repair` forgets it, and the next `mirror sync` or the daemon downloads it again"


def check(home: Home) -> Iterator[Finding]:
    """Check every content by its size, and some by their digest."""
    if not home.published.exists():
        return
    try:
        with reader.opened(home) as opened:
            held = contents.named(opened.run)
    except StoreError:
        return  # an earlier check reports that the file cannot be read
    blobs = Blobs(home.blobs)
    damaged = [digest for digest, size in held.items() if not blobs.has(digest, size)]
    small = [digest for digest, size in held.items() if size <= MOST_BYTES and digest not in set(damaged)]
    sample = random.sample(small, min(MOST, len(small)))
    damaged += [digest for digest in sample if files.digest(blobs.path(digest)) != digest]
    for digest in damaged[:MOST_NAMED]:
        yield fail("files", f"{blobs.path(digest)} is missing or damaged", _ADVICE)
    if len(damaged) > MOST_NAMED:
        yield fail("files", f"{len(damaged) - MOST_NAMED:,} more contents are missing or damaged", _ADVICE)
    if held and not damaged:
        count = f"{len(held):,} {'content exists' if len(held) == 1 else 'contents exist'}"
        yield ok("files", f"{count}; {len(sample):,} of them were read and are undamaged")
