"""Splits the missing steps of many runs into windows, and packs these into requests of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from mirror.remote.history import MOST_SAMPLES, Window

REQUEST_BYTES = 4 << 20
"""The target size of one history answer."""

REQUEST_RUNS = 50
"""The most run selections in one document."""


class Span(Struct, frozen=True):
    """Steps of one run to fetch, `first` to `last` inclusive, and the expected number of lines."""

    run_id: str
    first: int
    last: int
    rows: int

    @property
    def steps(self) -> int:
        """The number of steps, with or without a line."""
        return self.last - self.first + 1


LAST_STEP = 2**62
"""The assumed end of a run whose last step the server does not report."""

SPARSE = 100
"""From this many steps per line on, lines may be unevenly spread: the steps of a clock are all at the end of a span."""

FEWEST_SAMPLES = 100


class RowSize:
    """The learned size of a history line in bytes."""

    def __init__(self) -> None:
        self.bytes = 400.0

    def learn(self, rows: int, size: int) -> None:
        """Record an answer of `size` bytes with `rows` lines."""
        if rows:
            self.bytes += 0.3 * (size / rows - self.bytes)

    @property
    def room(self) -> float:
        """The number of lines that one answer should hold."""
        return max(1.0, REQUEST_BYTES / self.bytes)


def is_uneven(span: Span, size: RowSize) -> bool:
    """Return True if windows of equally many steps might hold none of the lines, or all of them."""
    return span.rows > size.room and span.steps > SPARSE * span.rows


def cut(span: Span, steps: Sequence[int], pieces: int) -> list[Span]:
    """Split the span into pieces of about equally many lines; `steps` are the sorted steps of a sample of them."""
    starts = sorted({steps[len(steps) * piece // pieces] for piece in range(1, pieces)})
    ends = [start - 1 for start in starts if span.first < start <= span.last] + [span.last]
    rows = -(-span.rows // len(ends))
    return [
        Span(span.run_id, first, last, rows)
        for first, last in zip([span.first, *(end + 1 for end in ends)], ends, strict=False)
    ]


def requests(spans: Sequence[Span], size: RowSize) -> Iterator[list[Window]]:
    """Split spans into windows and group them into requests of about REQUEST_BYTES each, in order.

    Reads `size` again for each request, so that the sizes of earlier answers are used.
    """
    batch: list[Window] = []
    room = 0.0
    for span in spans:
        first = span.first
        while first <= span.last:
            if not batch:
                room = size.room
            window, rows = _window(span, first, room)
            batch.append(window)
            room -= rows
            first = window.end
            if room < 1 or len(batch) >= REQUEST_RUNS:
                yield batch
                batch = []
    if batch:
        yield batch


def _window(span: Span, first: int, room: float) -> tuple[Window, float]:
    """Return the window that starts at `first`, and its expected number of lines, at most `room`."""
    wanted = max(1, int(min(room, span.rows)))
    # Steps in nanoseconds are too large for floats.
    end = min(span.last + 1, first + span.steps * wanted // span.rows + 1)
    rows = (end - first) * span.rows / span.steps
    if end - first <= MOST_SAMPLES:
        return Window(span.run_id, first, end), rows
    return Window(span.run_id, first, end, max(FEWEST_SAMPLES, 4 * wanted)), rows
