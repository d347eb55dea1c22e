"""Signs of trouble in a run's history, by rules that are stated with what they find. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from mirror.mcp.answers import number

PIECES = 20
"""A curve is judged by the medians of so many pieces with equally many values; of fewer values each is a piece."""

FEWEST = 6
"""With fewer values a curve is not judged."""

SPIKE = 10
"""A value so many times the median of its piece is a spike."""

LOST = 0.5
"""A metric diverged if its last piece lost this share of the improvement between its first and its best piece."""

WORSE = 0.1
"""It got worse after its best if it lost this share of it."""

STALLED = 0.5
"""It stalled if no value of this last share is better than the best one before."""


class Piece(Struct, frozen=True):
    """Neighbouring finite values of a key. `spread` is the distance of their quartiles."""

    first_step: int
    last_step: int
    median: float
    low: float
    high: float
    spread: float
    values: int
    low_step: int
    high_step: int

    def flipped(self) -> Piece:
        """The piece of the negated values, so that lower is better."""
        return Piece(
            *(self.first_step, self.last_step, -self.median, -self.high, -self.low, self.spread, self.values),
            *(self.high_step, self.low_step),
        )


class Sign(Struct, frozen=True):
    """Something that was found: its kind, and a sentence with the numbers."""

    kind: str
    text: str


def of_metric(key: str, pieces: Sequence[Piece], *, lower: bool) -> list[Sign]:
    """The signs in a metric with a direction, of at least FEWEST values in step order."""
    found = [*_spike(key, pieces)] if lower else []
    down = pieces if lower else [piece.flipped() for piece in pieces]
    best = min(range(len(down)), key=lambda index: down[index].median)
    first, last = down[0].median, down[-1].median
    sign = 1 if lower else -1
    shown = _shown(down[0], down[best], down[-1], sign)
    gained, lost = first - down[best].median, last - down[best].median
    noise = _noise(down)
    if lost > noise and lost > LOST * gained:
        worse = "ended worse than it began" if last > first else "lost more than half of its improvement"
        found.append(Sign("divergence", f"{key} {worse}: {shown}"))
    elif lost > noise and lost > WORSE * gained and best < len(down) - 2:
        found.append(Sign("worse after its best", f"{key}: {shown}"))
    if not {"divergence", "worse after its best"} & {one.kind for one in found}:
        found += _plateau(key, down, sign)
    return found


def _shown(first: Piece, best: Piece, last: Piece, sign: int) -> str:
    began, peak, ended = (number(sign * piece.median) for piece in (first, best, last))
    if first.values == 1:
        return f"first {began}, best {peak} at step {best.first_step:,}, last {ended}"
    at = f"steps {best.first_step:,} to {best.last_step:,}"
    return f"medians of {100 // PIECES}% of its values: first {began}, best {peak} ({at}), last {ended}"


def _noise(pieces: Sequence[Piece]) -> float:
    """How far values are apart that are next to each other: the middle of the pieces' spreads, or of their steps up."""
    spreads = sorted(piece.spread for piece in pieces)
    if pieces[0].values > 1:
        return spreads[len(spreads) // 2]
    ups = sorted(max(later.median - piece.median, 0.0) for piece, later in pairwise(pieces))
    return ups[len(ups) // 2]


def _spike(key: str, pieces: Sequence[Piece]) -> list[Sign]:
    """The highest value of a metric above zero that is far from its neighbours. The first pieces fall steeply."""
    late = [piece for piece in pieces[2:] if piece.median > 0 and piece.high > SPIKE * piece.median]
    if not late:
        return []
    worst = max(late, key=lambda piece: piece.high / piece.median)
    times = worst.high / worst.median
    text = f"{key} = {number(worst.high)} at step {worst.high_step:,}, {times:.0f} times the median around it"
    return [Sign("spike", text)]


def _plateau(key: str, down: Sequence[Piece], sign: int) -> list[Sign]:
    values = sum(piece.values for piece in down)
    low = min(piece.low for piece in down)
    at = next(index for index, piece in enumerate(down) if piece.low == low)
    after = sum(piece.values for piece in down[at + 1 :])
    if after < STALLED * values:
        return []
    best = f"its best value, {number(sign * low)}, is of step {down[at].low_step:,}"
    return [Sign("plateau", f"{key}: {best}; none of the last {after:,} of {values:,} values is better")]
