"""Sweeps: searches that start runs of their own."""

from __future__ import annotations

import base64
import itertools
import math
import random
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from mirror.sandbox.errors import Refused

_COLUMNS = {
    "name": "name",
    "state": "state",
    "method": "method",
    **dict.fromkeys(("displayName", "display_name"), "display_name"),
    "description": "description",
}
_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda value, wanted: value == wanted,
    "$ne": lambda value, wanted: value != wanted,
    "$in": lambda value, wanted: value in wanted,
    "$nin": lambda value, wanted: value not in wanted,
    "$regex": lambda value, wanted: isinstance(value, str) and re.search(wanted, value) is not None,
}


class Sweep(Struct, frozen=True):
    """A sweep as the API returns it; its runs are those of the project whose `sweep` is its name."""

    name: str
    entity: str
    project: str
    created_at: datetime
    config: str
    method: str = "random"
    state: str = "FINISHED"
    display_name: str | None = None
    description: str | None = None
    expected_runs: int | None = None
    prior_runs: tuple[str, ...] = ()
    """The ids of earlier runs that the search considers."""
    updated_at: datetime | None = None

    @property
    def storage_id(self) -> str:
        """The id in the API."""
        return base64.b64encode(f"Sweep:v1:{self.name}:{self.project}:{self.entity}".encode()).decode()

    @property
    def metric(self) -> tuple[str, bool]:
        """The summary key that it optimises, and True if a larger value is better; "loss" without one."""
        import yaml

        parsed = yaml.safe_load(self.config)
        metric = (parsed if isinstance(parsed, dict) else {}).get("metric") or {}
        return metric.get("name", "loss"), metric.get("goal") == "maximize"


class Agent(Struct):
    """A process that asks for runs of a sweep and executes them."""

    agent_id: str
    sweep: Sweep
    host: str
    created_at: datetime
    heartbeat_at: datetime
    runs: list[str] = field(default_factory=list)
    """The ids of the runs that it was given."""

    @property
    def storage_id(self) -> str:
        """The id in the API."""
        return base64.b64encode(f"Agent:v1:{self.agent_id}:{self.sweep.name}".encode()).decode()


def next_config(sweep: Sweep, number: int) -> dict[str, Any] | None:
    """Return the values of the run with this number in the search, from 0; None if the search is over."""
    import yaml

    parameters = (yaml.safe_load(sweep.config) or {}).get("parameters") or {}
    if sweep.method == "grid":
        lists = [given.get("values", [given.get("value")]) for given in parameters.values()]
        chosen = next(itertools.islice(itertools.product(*lists), number, None), None)
        return None if chosen is None else dict(zip(parameters, chosen, strict=True))
    draw = random.Random(f"{sweep.name}/{number}")
    return {name: _drawn(given, draw) for name, given in parameters.items()}


def _drawn(given: Mapping[str, Any], draw: random.Random) -> Any:
    if "values" in given:
        return draw.choice(given["values"])
    if "min" in given and "max" in given:
        whole = isinstance(given["min"], int) and isinstance(given["max"], int)
        return draw.randint(given["min"], given["max"]) if whole else draw.uniform(given["min"], given["max"])
    return given.get("value")


def search(config: str | None) -> tuple[str, int | None]:
    """Return a sweep's method and number of runs, which only a grid has. Refuses an invalid config."""
    import yaml

    try:
        parsed = yaml.safe_load(config or "")
    except yaml.YAMLError:
        parsed = None
    if not isinstance(parsed, dict) or parsed.get("method") not in ("grid", "random", "bayes", "custom"):
        raise Refused("invalid sweep config: it has no known method", 400)
    return parsed["method"], _combinations(parsed.get("parameters") or {}) if parsed["method"] == "grid" else None


def _combinations(parameters: Mapping[str, Any]) -> int:
    return math.prod(
        _combinations(given["parameters"]) if "parameters" in given else len(given.get("values", [None]))
        for given in parameters.values()
    )


def fits(sweep: Sweep, wanted: Mapping[str, Any]) -> bool:
    """Return True if a sweep matches a filter like those for runs. Refuses unknown columns and operators."""
    return all(_member_fits(sweep, key, value) for key, value in wanted.items())


def _member_fits(sweep: Sweep, key: str, value: Any) -> bool:
    if key in ("$and", "$or"):
        return (all if key == "$and" else any)(fits(sweep, each) for each in value)
    if key not in _COLUMNS:
        raise Refused(f"invalid filters: {key}", 400)
    held = getattr(sweep, _COLUMNS[key])
    tests = value if isinstance(value, dict) else {"$eq": value}
    if unknown := [name for name in tests if name not in _TESTS]:
        raise Refused(f"invalid filters: {unknown[0]}", 400)
    return all(_TESTS[name](held, operand) for name, operand in tests.items())
