"""What a run becomes in MLflow: its status, parameters, tags, and metrics."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from msgspec.structs import asdict

from mirror.metrics import STEP
from mirror.move.mlflow_names import cleaned, unique
from mirror.protocol import LIVE_STATES
from mirror.snapshot.whole_runs import RunFile, Step, Value, WholeRun
from mirror.wandb_json import dumps

LONGEST_PARAM, LONGEST_TAG = 6000, 8000
"""The longest values, in characters."""

RUN_PATH = "wandb_mirror.run_path"
"""The tag that finds a run again."""

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "crashed": "FAILED", "killed": "KILLED", "preempted": "KILLED"}

OWN = ("_timestamp", "_runtime", STEP, "_wandb")
"""Keys that are not metrics of their own: each metric has a step and a time."""


class Measured(NamedTuple):
    """A metric: its name in MLflow, milliseconds since 1970, the step, and the key in the mirror."""

    name: str
    value: float
    at: int
    step: int
    key: str


def status(one: WholeRun) -> str:
    """Return the status of MLflow that is nearest to the state."""
    return "RUNNING" if one.state in LIVE_STATES else _STATUS.get(one.state, "FAILED")


def milliseconds(at: datetime | None) -> int | None:
    """Return a naive UTC time as MLflow has it."""
    return None if at is None else int(at.replace(tzinfo=UTC).timestamp() * 1000)


def leaves(document: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a document by dotted keys; lists, empty objects and those with a `_type` are values."""
    for key, value in document.items():
        if isinstance(value, dict) and value and "_type" not in value:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def params(one: WholeRun) -> tuple[dict[str, str], list[str]]:
    """Return the parameters, and the keys of config values that are too long for one."""
    found = dict(leaves(one.config))
    names = unique(found)
    texts = {key: value if isinstance(value, str) else dumps(value) for key, value in found.items()}
    too_long = [key for key, text in texts.items() if len(text) > LONGEST_PARAM]
    return {names[key]: text for key, text in texts.items() if len(text) <= LONGEST_PARAM}, too_long


def tags(one: WholeRun) -> dict[str, str]:
    """Return the tags: those of the run, its fields that MLflow does not have, and texts of the summary."""
    git = one.metadata.get("git")
    found: dict[str, Any] = {
        RUN_PATH: one.path,
        "mlflow.runName": one.name or one.run_id,
        "mlflow.note.content": one.notes,
        "mlflow.user": one.username,
        "mlflow.source.name": one.metadata.get("program"),
        "mlflow.source.git.commit": one.git_commit,
        "mlflow.source.git.repoURL": git.get("remote") if isinstance(git, dict) else None,
        "wandb.state": one.state,
        "wandb.group": one.group_name,
        "wandb.job_type": one.job_type,
        "wandb.sweep": one.sweep,
        "wandb.host": one.host,
        "wandb.url": one.url,
        **{cleaned(f"tag.{tag}"): "true" for tag in one.tags},
        **{cleaned(f"summary.{key}"): value for key, value in leaves(one.summary) if isinstance(value, str)},
    }
    return {key: value[:LONGEST_TAG] for key, value in found.items() if isinstance(value, str) and value}


def number(value: Value) -> float | None:
    """Return a logged value as a metric: true is 1 and false 0. None for text, lists and objects."""
    if value.number is not None:
        return value.number
    return {"true": 1.0, "false": 0.0}.get(value.text or "")


class Measures:
    """Turns lines of history or system metrics into metrics. `texts` gets a JSON line for each other value."""

    def __init__(self, one: WholeRun, names: Mapping[str, str], texts: Any = None) -> None:
        self._names = names
        self._texts = texts
        self.other = 0
        self.last: dict[str, float] = {}
        self._at = milliseconds(one.created_at) or 0
        self._step = 0

    def read(self, steps: Iterator[Step]) -> Iterator[Measured]:
        """Yield the metrics in the order of steps and keys. A line without a time has that of the line before."""
        for step, values in steps:
            stamp = next((value.number for value in values if value.key == "_timestamp"), None)
            if stamp is not None and 0 <= stamp < 32_503_680_000:
                self._at = int(stamp * 1000)
            self._step = step
            for value in values:
                if value.key in OWN:
                    continue
                if (found := number(value)) is not None:
                    self.last[value.key] = found
                    yield Measured(self._names[value.key], found, self._at, step, value.key)
                elif self._texts is not None:
                    self.other += 1
                    self._texts.write(f'{{"{STEP}":{step},"key":{json.dumps(value.key)},"value":{value.text}}}\n')

    def summary(self, one: WholeRun) -> Iterator[Measured]:
        """Yield the numbers of the summary that are not the last ones of the history, such as a minimum."""
        for key, value in leaves(one.summary):
            if key.split(".")[0] in OWN or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            last = self.last.get(key)
            if last is None or not (last == value or (math.isnan(last) and math.isnan(value))):
                plain = key not in self.last and key not in self._names
                name = cleaned(key if plain else f"summary/{key}")
                yield Measured(name, float(value), self._at, self._step, key)


def fingerprint(one: WholeRun, files: Sequence[RunFile]) -> str:
    """Return a text that changes with anything that is exported of a run."""
    record = {key: value for key, value in asdict(one).items() if key not in ("rid", "deleted_at")}
    held = [(file.name, file.size, file.path is not None) for file in files]
    return hashlib.sha256(repr((record, held)).encode("utf-8", "replace")).hexdigest()[:32]
