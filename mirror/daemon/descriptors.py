"""Raises the limit of open files and connections of this process."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger("mirror.daemon")

WANTED = 65_536
"""More is of no use, and programs that close all possible descriptors become slow."""

ENOUGH = 512
"""With fewer there may not be enough for segments of history, readers and connections to the server."""

_MACOS_MOST = 10_240


def raise_limit() -> int:
    """Raise the soft limit of open files as far as the system allows, up to WANTED; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    # macOS reports no limit, but refuses more than this.
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
