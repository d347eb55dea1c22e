"""Evenly spaced samples of rows, with the first and the last: one rule, in Python and in SQL."""

from __future__ import annotations


def spread(count: int, samples: int) -> list[int]:
    """Evenly spaced indexes of at most `samples` of `count` rows, with the first and, for two or more, the last."""
    if count <= samples:
        return list(range(count))
    gaps = samples - 1
    return [-(-index * (count - 1) // gaps) for index in range(samples)] if gaps > 0 else [0][:samples]


def spread_sql(rows: str, columns: str, samples: str, *, of: str = "") -> str:
    """SQL for these columns of the rows with the same indexes, counted by `step`, in each group of equal `of`.

    `rows` is a query, and `samples` the parameter for the number of rows, at least 1; `?` is needed three times.
    """
    group = f"PARTITION BY {of}" if of else ""
    return f"""SELECT {columns} FROM (
        SELECT *, row_number() OVER ({group} ORDER BY step) - 1 AS i, count(*) OVER ({group}) AS n FROM ({rows})
    ) WHERE n <= {samples} OR i = 0 OR i * ({samples} - 1) // (n - 1) > (i - 1) * ({samples} - 1) // (n - 1)"""
