"""A table of groups of runs: statistics of their config and summary values, each with the number of runs it is of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from mirror.errors import QueryError, UsageError
from mirror.query.unknown import FIELDS, nearest_field
from mirror.snapshot import document_keys
from mirror.snapshot.group_means import deviation, half_width
from mirror.snapshot.result import Rows
from mirror.snapshot.run_query import RunQuery

AGGREGATES = ("mean", "ci", "std", "min", "max", "median")
DEFAULT = ("mean", "ci")

_MEANT = {"avg": "mean", "average": "mean", "stddev": "std", "sd": "std", "interval": "ci", "ci95": "ci"}


class Statistics(Struct, frozen=True):
    """What is known about the finite values of a group's runs in one column; None where there are too few of them.

    `ci` is half of the width of the 95% confidence interval of the mean, by the rule of `mirror.snapshot.group_means`.
    It and `std` need two values.
    """

    n: int
    mean: float | None = None
    ci: float | None = None
    std: float | None = None
    min: float | int | None = None
    max: float | int | None = None
    median: float | int | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistics:
        """Compute them. Whole numbers keep their digits in `min` and `max`."""
        if not values:
            return cls(0)
        middle = math.fsum(values) / len(values)
        several = len(values) > 1
        return cls(
            len(values),
            middle,
            half_width(values, middle) if several else None,
            deviation(values, middle) if several else None,
            min(values),
            max(values),
            statistics.median(values),
        )


class Group(Struct, frozen=True):
    """The runs with the same values in the grouping columns, and their statistics, one per column."""

    values: tuple[Any, ...]
    runs: int
    statistics: tuple[Statistics, ...]


class GroupTable(Struct, frozen=True):
    """Groups in the order of their values: numbers by size, then texts, then runs without a value."""

    by: list[str]
    columns: list[str]
    aggregates: list[str]
    groups: list[Group]

    def rows(self) -> Rows:
        """One number per cell, for programs: `n(KEY)`, `mean(KEY)`, `ci95_low(KEY)`, `ci95_high(KEY)` and so on."""
        names = [*self.by, "runs"]
        for column in self.columns:
            names += [f"{part}({column})" for part in self._parts()]
        return Rows(
            names,
            [
                (*group.values, group.runs, *(cell for one in group.statistics for cell in self._cells(one)))
                for group in self.groups
            ],
        )

    def printed(self, decimals: int | None = None) -> Printed:
        """For people: the mean and its interval in one cell, such as `0.813 ± 0.012`, with n if it is not all runs.

        All cells of a column have the same number of decimals: `decimals`, else as many as show two digits of the
        middle interval.
        """
        names = [*self.by, "runs"]
        columns: list[list[str | None]] = []
        for index, column in enumerate(self.columns):
            stats = [group.statistics[index] for group in self.groups]
            places = _places(stats) if decimals is None else decimals
            shown = [one for one in self.aggregates if one != "ci" or "mean" not in self.aggregates]
            for aggregate in shown:
                interval = aggregate == "mean" and "ci" in self.aggregates
                names.append({"mean": column, "ci": f"± {column}"}.get(aggregate, f"{aggregate} {column}"))
                cells = [_cell(one, aggregate, places, interval=interval) for one in stats]
                if aggregate == shown[0]:
                    cells = [_with_n(*each) for each in zip(cells, stats, self.groups, strict=True)]
                columns.append(cells)
        rows = [
            (*group.values, group.runs, *(cells[index] for cells in columns)) for index, group in enumerate(self.groups)
        ]
        numeric = Rows(names, rows).numeric
        return Printed(names, rows, numbers=[*numeric[: len(self.by)], *[True] * (len(names) - len(self.by))])

    def _parts(self) -> list[str]:
        parts = ["n"]
        for aggregate in self.aggregates:
            parts += ["ci95_low", "ci95_high"] if aggregate == "ci" else [aggregate]
        return parts

    def _cells(self, one: Statistics) -> list[float | int | None]:
        cells: list[float | int | None] = [one.n]
        for aggregate in self.aggregates:
            if aggregate != "ci":
                cells.append(getattr(one, aggregate))
            elif one.ci is None or one.mean is None:
                cells += [None, None]
            else:
                cells += [one.mean - one.ci, one.mean + one.ci]
        return cells


@dataclass(frozen=True)
class Printed(Rows):
    """Rows of texts, of which some columns hold numbers with more than their digits."""

    numbers: Sequence[bool] = ()

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        return list(self.numbers)


def table(
    query: RunQuery,
    by: Sequence[str],
    columns: Sequence[str],
    aggregates: Sequence[str] = DEFAULT,
    *,
    warn: Callable[[str], object] = lambda _: None,
) -> GroupTable:
    """Group the runs of a query by columns, and compute statistics of other columns; without `by`, over all runs.

    `by` are columns of runs, `config.KEY`, `summary.KEY` or one of FIELDS. Runs without a number in a column do not
    count in its n; `warn` is called where values are no numbers or not finite, and for unknown keys. Raises UsageError
    for unknown columns and statistics, QueryError if no run matches, or no column has a number.
    """
    wanted = _aggregates(aggregates)
    known = _Known(query)
    grouping, values = (
        [known.column(name, "--group-by") for name in by],
        [known.column(name, "--select") for name in columns],
    )
    if not values:
        raise UsageError("--select is missing: name the columns, such as summary.acc; `mirror keys PATH` lists keys")
    for text in query.unknown_columns([*grouping, *values]):
        warn(text)
    found = query.rows(list(dict.fromkeys([*grouping, *values]))).arrow().read_all()
    if not found.num_rows:
        raise QueryError("no run matches")
    numbers = [_numbers(found[column].to_pylist(), column, warn) for column in values]
    members: dict[tuple[Any, ...], list[int]] = {}
    keys = [found[column].to_pylist() for column in grouping]
    for index in range(found.num_rows):
        members.setdefault(tuple(_hashable(column[index]) for column in keys), []).append(index)
    if all(number is None for column in numbers for number in column):
        raise QueryError(f"none of the {found.num_rows:,} runs has a number in {', '.join(values)}")
    groups = [
        Group(
            key,
            len(at),
            tuple(Statistics.of([one for i in at if (one := column[i]) is not None]) for column in numbers),
        )
        for key, at in sorted(members.items(), key=lambda item: [_order(value) for value in item[0]])
    ]
    return GroupTable(list(by), list(values), wanted, groups)


class _Known:
    """The columns that runs can be grouped by and computed over."""

    def __init__(self, query: RunQuery) -> None:
        self._query = query
        self._keys: list[tuple[str, str]] | None = None

    def column(self, name: str, option: str) -> str:
        """The column of `runs`, `config.KEY` or `summary.KEY`. Raises UsageError, naming the nearest."""
        if name in FIELDS:
            return FIELDS[name]
        doc, _, key = name.partition(".")
        if (doc in ("config", "summary", "summary_metrics") and key) or self._query.has_column(name):
            return name
        if self._keys is None:
            self._keys = document_keys.of_runs(self._query.connection, self._query.rids())
        raise UsageError(f"{option} {name}: runs have no such field; {nearest_field(name, self._keys)}")


def _aggregates(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in AGGREGATES:
            meant = _MEANT.get(name.lower())
            hint = f"did you mean {meant}?" if meant else f"known: {', '.join(AGGREGATES)}"
            raise UsageError(f"--agg {name}: {hint}")
    if not names:
        raise UsageError(f"--agg is empty; known: {', '.join(AGGREGATES)}")
    return list(dict.fromkeys(names))


def _numbers(values: Sequence[Any], column: str, warn: Callable[[str], object]) -> list[float | int | None]:
    """The finite numbers of a column; None where a run has none."""
    numbers = [value if type(value) in (int, float) else _parsed(value) for value in values]
    finite = [one if one is not None and math.isfinite(one) else None for one in numbers]
    texts = sum(value is not None and one is None for value, one in zip(values, numbers, strict=True))
    infinite = sum(one is not None and kept is None for one, kept in zip(numbers, finite, strict=True))
    for count, what in ((texts, "is not a number"), (infinite, "is NaN or infinite")):
        if count:
            runs = "run, which does" if count == 1 else "runs, which do"
            warn(f"{column} {what} in {count:,} {runs} not count in its n")
    return finite


def _parsed(value: Any) -> float | int | None:
    """The number that a text is, since a key under which runs also have text is a column of texts."""
    if not isinstance(value, str):
        return None
    for kind in (int, float):
        try:
            number: float | int = kind(value)
        except ValueError:
            continue
        return number
    return None


def _hashable(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _order(value: Any) -> tuple[int, float, str]:
    if value is None:
        return 3, 0.0, ""
    number = _parsed(value) if isinstance(value, str) else value
    if isinstance(number, int | float) and math.isfinite(number):
        return 0, float(number), ""
    return 1, 0.0, str(value)


def _places(stats: Sequence[Statistics]) -> int:
    """How many decimals show two digits of the middle interval, else four of the greatest mean."""
    widths = sorted(one.ci for one in stats if one.ci)
    if widths:
        return max(0, 1 - math.floor(math.log10(widths[len(widths) // 2])))
    greatest = max((abs(one.mean) for one in stats if one.mean), default=1.0)
    return max(0, 3 - math.floor(math.log10(greatest)))


def _cell(one: Statistics, aggregate: str, places: int, *, interval: bool) -> str | None:
    value = getattr(one, aggregate)
    if value is None:
        return None
    text = _rounded(value, places)
    return f"{text} ± {_rounded(one.ci, places)}" if interval and one.ci is not None else text


def _rounded(value: float, places: int) -> str:
    if isinstance(value, int):
        return str(value)
    # Past this many decimals, or digits, only a power of ten is readable.
    return f"{value:.3g}" if places > 6 or abs(value) >= 1e9 else f"{value:.{places}f}"


def _with_n(cell: str | None, one: Statistics, group: Group) -> str | None:
    return f"{cell} (n={one.n})" if cell is not None and one.n != group.runs else cell
