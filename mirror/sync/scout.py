"""Locates the lines of runs that have far fewer lines than steps, before their steps are split into windows."""

from __future__ import annotations

from collections.abc import Sequence

from mirror.errors import AuthError, CommError
from mirror.remote import history
from mirror.remote.client import Server, Unreachable
from mirror.remote.history import Window
from mirror.store.records import ProjectKey
from mirror.sync import request_windows
from mirror.sync.request_windows import RowSize, Span

LINES = 1000
"""Lines of a run in the sample."""

MOST_PIECES = 256


async def locate(server: Server, project: ProjectKey, spans: Sequence[Span], size: RowSize) -> list[Span]:
    """Return the spans; those that may be uneven are split into pieces of about equally many lines.

    A sample of the lines shows where to split. Its quality only affects the number of requests; a span without a sample
    stays whole. Raises Unreachable or AuthError.
    """
    uneven = [span for span in spans if request_windows.is_uneven(span, size)]
    cut: dict[Span, list[Span]] = {}
    at_once = max(1, min(request_windows.REQUEST_RUNS, int(size.room) // LINES))
    for start in range(0, len(uneven), at_once):
        cut |= await _cut(server, project, uneven[start : start + at_once], size)
    return [piece for span in spans for piece in cut.get(span, [span])]


async def _cut(server: Server, project: ProjectKey, spans: Sequence[Span], size: RowSize) -> dict[Span, list[Span]]:
    windows = {Window(span.run_id, span.first, span.last + 1, LINES): span for span in spans}
    try:
        lines = await history.fetch(server, project, list(windows))
    except (Unreachable, AuthError):
        raise
    except CommError:
        return {}
    pieces_of = {}
    for window, span in windows.items():
        try:
            steps = history.steps_of(span.run_id, lines[window] or [])
        except CommError:
            continue
        if steps:
            size.learn(len(steps), sum(map(len, lines[window] or [])))
            pieces = min(MOST_PIECES, len(steps), 2 * int(span.rows / size.room) + 2)
            pieces_of[span] = request_windows.cut(span, steps, pieces)
    return pieces_of
