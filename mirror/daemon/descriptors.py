"""How many files and connections the process may have open at once."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger("mirror.daemon")

WANTED = 65_536
"""More than this is of no use, and programs that close all descriptors which they might have take their time."""

ENOUGH = 512
"""Below this, segments of history, connections of readers and connections to the server may not all find room."""

_MACOS_MOST = 10_240


def raise_limit() -> int:
    """Raise the soft limit of open files as far as this process may, up to WANTED; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    # macOS tells of no limit, but refuses more than this.
    for limit in (most, min(most, _MACOS_MOST)):
        if soft == resource.RLIM_INFINITY or soft >= limit:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (ValueError, OSError):
            continue
        soft = limit
    if soft != resource.RLIM_INFINITY and soft < ENOUGH:
        log.warning("this process may open only %d files at once; raise `ulimit -n` to %d or more", soft, ENOUGH)
    return soft
