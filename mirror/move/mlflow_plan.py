"""What MLflow does not hold of the runs that are exported to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mirror.move import mlflow_run as made
from mirror.move.chosen import Chosen
from mirror.move.mlflow_names import cleaned
from mirror.move.plan import Plan, some

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NAMED = 4
"""How many examples a sentence names."""


def limits(connection: DuckDBPyConnection, chosen: Chosen, plan: Plan) -> Iterator[str]:
    """Yield a sentence for each thing that is held in another form or not at all."""
    textual: dict[str, int] = {}
    keys: set[str] = set()
    too_long: dict[str, None] = {}
    cut = 0
    for page in chosen.pages(connection):
        for key, without_numbers, rows in connection.execute(
            "SELECT key, bool_and(min IS NULL AND last IS NULL), sum(rows)::BIGINT FROM history_keys "
            "WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY key ORDER BY key",
            [*page[0].project, [one.run_id for one in page]],
        ).fetchall():
            keys.add(key)
            if without_numbers:
                textual[key] = textual.get(key, 0) + rows
        for one in page:
            too_long.update(dict.fromkeys(made.params(one)[1]))
            cut += len(one.notes or "") > made.LONGEST_TAG
            keys.update(key for key, _ in made.leaves(one.config))
    if textual:
        yield (
            f"keys without numbers ({_named(sorted(textual))}; {some(sum(textual.values()), 'value')}): true and false "
            "become 1 and 0, text, lists and objects are in the artifact wandb/history_text.jsonl"
        )
    if renamed := sorted(key for key in keys if cleaned(key) != key):
        first = renamed[0]
        yield f"characters that MLflow refuses in names become _, as in {cleaned(first)!r} for {first!r}"
    if too_long:
        longest = f"{made.LONGEST_PARAM:,} characters"
        yield f"config values of more than {longest} ({_named(list(too_long))}) are in the artifact wandb/config.json"
    if cut:
        yield f"notes of {some(cut, 'run')} are cut after {made.LONGEST_TAG:,} characters"
    if nearest := ", ".join(
        f"{plan.states[state]:,} {state} as {status}"
        for state, status in (("crashed", "FAILED"), ("killed", "KILLED"), ("preempted", "KILLED"))
        if plan.states[state]
    ):
        yield f"states: {nearest}"
    yield "integers past 2^53 are rounded; servers with a database store infinities as 1.8e308"
    yield "not exported: artifacts, reports, sweeps themselves, define_metric"


def _named(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else ""
    return f"{', '.join(keys[:_NAMED])}{more}"
