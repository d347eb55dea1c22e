"""The metrics that runs are compared by: which there are, their value in each run, and which direction is better."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from mirror.errors import QueryError
from mirror.filters import nearest
from mirror.mcp.ask import PICKED, picked
from mirror.snapshot.paths import nearest_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from mirror.mcp.ask import Run

SUMMARY = "summary"
OF_HISTORY = ("last", "min", "max")
VALUES = (SUMMARY, *OF_HISTORY)

_LOWER = "\\w*loss|error|err|ppl|perplexity|mse|mae|rmse|nll|wer|cer|fid"
_HIGHER = (
    "acc|accuracy|top\\d|reward|return|bleu\\w*|rouge\\w*|f1|auc|auroc|map|miou|iou|psnr|ssim|precision|recall"
    "|score|success|win_?rate"
)
_VALIDATION = "val|valid|validation|eval|test|dev"


def _word(words: str) -> re.Pattern[str]:
    """Finds one of these words as a part of a key, between `/`, `.`, `_` and `-`."""
    return re.compile(rf"(?:^|[/._-])(?:{words})(?:$|[/._-])", re.IGNORECASE)


LOWER, HIGHER, VALIDATION = map(_word, (_LOWER, _HIGHER, _VALIDATION))


class Metric(Struct, frozen=True):
    """A metric with its finite values by rid; `not_finite` runs have NaN or an infinity."""

    key: str
    values: Mapping[int, float]
    not_finite: frozenset[int]


class Goal(Struct, frozen=True):
    """Whether lower values are better, None if that is not known, and who says so."""

    lower: bool | None
    reason: str


def metrics(connection: DuckDBPyConnection, runs: Sequence[Run], keys: Sequence[str], value: str) -> list[Metric]:
    """These metrics, or those that most of the runs have. `value` is one of VALUES.

    Raises QueryError for a key under which none of the runs has a number, naming the nearest.
    """
    known = _known(connection, runs, value)
    names = [_plain(key) for key in keys]
    for key in names:
        if key not in known:
            where = "summary" if value == SUMMARY else "history"
            near = nearest(key, known)
            hint = f"did you mean {near}?" if near else nearest_of(key, known)
            raise QueryError(f"none of these runs has a number under {key} in its {where}; {hint}")
    return [_metric(connection, runs, key, value) for key in names]


def usual(connection: DuckDBPyConnection, runs: Sequence[Run], value: str, most: int) -> tuple[list[str], int]:
    """The metrics that are compared if none is named, and how many there are.

    Those with a known direction come first, of them those of validation.
    """
    known = _known(connection, runs, value)
    goals = Goals.of(connection, runs)
    ordered = sorted(known, key=lambda key: (goals.goal(key).lower is None, not VALIDATION.search(key)))
    return ordered[:most], len(known)


class Goals(Struct, frozen=True):
    """The goals that define_metric and sweeps of some projects state, by key: `minimize` or `maximize`."""

    defined: Mapping[str, set[str]]
    of_sweeps: Mapping[str, set[str]]

    @classmethod
    def of(cls, connection: DuckDBPyConnection, runs: Sequence[Run]) -> Goals:
        """Those of the projects of these runs."""
        found: list[dict[str, set[str]]] = []
        for relation, column in (("metric_definitions", "key"), ("sweeps", "metric")):
            said: dict[str, set[str]] = {}
            for project in dict.fromkeys(run.project for run in runs):
                sql = (
                    f"SELECT DISTINCT {column}, goal FROM {relation} WHERE entity = ? AND project = ?"
                    f" AND {column} IS NOT NULL AND goal IN ('minimize', 'maximize')"
                )
                for key, goal in connection.execute(sql, list(project)).fetchall():
                    said.setdefault(key, set()).add(goal)
            found.append(said)
        return cls(*found)

    def goal(self, key: str, given: str | None = None) -> Goal:
        """Which direction is better: as given, else as define_metric or a sweep says, else by the name of the key."""
        if given:
            return Goal(given == "min", "as given")
        for said, reason in ((self.defined, "by define_metric"), (self.of_sweeps, "by the sweep's goal")):
            if len(goals := said.get(key, set())) == 1:
                return Goal(goals == {"minimize"}, reason)
        lower, higher = LOWER.search(key) is not None, HIGHER.search(key) is not None
        return Goal(lower, "by the key's name") if lower != higher else Goal(None, "")


def _plain(key: str) -> str:
    return key.removeprefix("summary.") if key.startswith("summary.") else key.removeprefix("summary_metrics.")


def _known(connection: DuckDBPyConnection, runs: Sequence[Run], value: str) -> list[str]:
    """The numeric keys of these runs, those that most runs have first, without W&B's own and parts of media."""
    relation, has_number = ("summary_values", "number") if value == SUMMARY else ("history_keys", "last")
    rows = connection.execute(
        f"""WITH picked AS ({PICKED})
        SELECT v.key FROM {relation} AS v JOIN picked USING (entity, project, run_id)
        WHERE v.{has_number} IS NOT NULL AND NOT starts_with(v.key, '_')
        GROUP BY v.key ORDER BY count(*) DESC, v.key""",
        picked(runs),
    ).fetchall()
    names = [key for (key,) in rows]
    if value != SUMMARY:
        return names
    media = connection.execute(
        f"WITH picked AS ({PICKED}) SELECT DISTINCT v.key FROM summary_values AS v "
        "JOIN picked USING (entity, project, run_id) WHERE v.key LIKE '%.\\_type' ESCAPE '\\'",
        picked(runs),
    ).fetchall()
    parts = tuple(key.removesuffix("_type") for (key,) in media)
    return [name for name in names if not name.startswith(parts)] if parts else names


def _metric(connection: DuckDBPyConnection, runs: Sequence[Run], key: str, value: str) -> Metric:
    relation, column = ("summary_values", "number") if value == SUMMARY else ("history_keys", f'"{value}"')
    rows = connection.execute(
        f"""WITH picked AS ({PICKED})
        SELECT picked.rid, v.{column} FROM {relation} AS v JOIN picked USING (entity, project, run_id)
        WHERE v.key = ? AND v.{column} IS NOT NULL""",
        [*picked(runs), key],
    ).fetchall()
    finite = {rid: number for rid, number in rows if math.isfinite(number)}
    return Metric(key, finite, frozenset(rid for rid, _ in rows) - finite.keys())
