"""Sweeps as the server returns them: listed, by name, and read as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mirror.addresses import sweep_page
from mirror.remote.client import NotFound, Server
from mirror.remote.errors import FeatureMissing
from mirror.remote.history_keys import valid_count
from mirror.remote.run_records import moment
from mirror.store.records import ProjectKey, SweepRecord
from mirror.wandb_json import UNREADABLE, dumps

LACK = "Project.sweeps"
"""In `Server.missing_features`: the server has no sweeps."""

AT_ONCE = 50
"""Sweeps in one answer: of some kB each."""

_OLD = ("id", "name", "state", "bestLoss", "config")
"""What every server has."""

_FIELDS = {
    **{name: name for name in _OLD},
    **{name: name for name in ("displayName", "method", "description", "createdAt", "updatedAt")},
    **{name: name for name in ("runCount", "runCountExpected")},
    # Seen in public clients, but in no query of the official SDK.
    "priorRuns": "priorRuns { edges { node { name } } }",
}

_LIST = """query MirrorSweeps($entity: String!, $project: String!, $after: String, $first: Int) {
  project(name: $project, entityName: $entity) {
    sweeps(after: $after, first: $first) { edges { node { %s } } pageInfo { endCursor hasNextPage } }
  }
}"""

_MOST_VALUES = 100_000
"""The most values of a config that become JSON: YAML may repeat a part of itself by name, many times over."""


async def listed(server: Server, project: ProjectKey, per_page: int = AT_ONCE) -> list[dict[str, Any]]:
    """Return the sweeps of a project in the server's order. Raises NotFound for a project that does not exist."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        data = await _ask(server, "MirrorSweeps", _LIST, project, after=after, first=per_page)
        if data.get("project") is None:
            raise NotFound(f"{server.base_url} has no project {project}", LookupError(str(project)))
        connection = data["project"]["sweeps"]
        found += [edge["node"] for edge in connection["edges"]]
        info = connection["pageInfo"]
        if not info["hasNextPage"] or info["endCursor"] == after:
            return found
        after = info["endCursor"]


async def named(server: Server, project: ProjectKey, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the sweeps with these names, by name; those that do not exist are left out."""
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        variables = {f"sweep{index}": name for index, name in enumerate(some)}
        declared = ", ".join(f"${variable}: String!" for variable in variables)
        fields = "\n".join(f"    {one}: sweep(sweepName: ${one}) {{ %s }}" for one in variables)
        document = (
            f"query MirrorSweep($entity: String!, $project: String!, {declared}) {{\n"
            f"  project(name: $project, entityName: $entity) {{\n{fields}\n  }}\n}}"
        )
        data = await _ask(server, "MirrorSweep", document, project, **variables)
        answers = data.get("project") or {}
        found |= {name: answers[one] for one, name in variables.items() if answers.get(one)}
    return found


async def one(server: Server, project: ProjectKey, name: str) -> dict[str, Any]:
    """Return what the server returns of one sweep. Raises NotFound."""
    found = await named(server, project, [name])
    if name not in found:
        raise NotFound(f"{server.base_url} has no sweep {project}/{name}", LookupError(name))
    return found[name]


async def _ask(server: Server, name: str, query: str, project: ProjectKey, **variables: Any) -> dict[str, Any]:
    """Return the answer; servers that lack some of the fields are asked for those that every server has."""
    variables |= {"entity": project.entity, "project": project.project}
    while True:
        asked = {field for field in _FIELDS if f"Sweep.{field}" not in server.missing_features}
        try:
            fields = " ".join(text for field, text in _FIELDS.items() if field in asked)
            return await server.graphql(name, query.replace("%s", fields), variables)
        except FeatureMissing as error:
            # A server that does not say which field it lacks is asked for those that every server has.
            named = {field for kind, field in error.fields if kind == "Sweep"} if error.fields else asked - {*_OLD}
            if not named & asked:
                raise
            server.missing_features |= {f"Sweep.{field}" for field in named}


def record_of(app_url: str, project: ProjectKey, node: Mapping[str, Any]) -> SweepRecord:
    """Return the record of a sweep; what cannot be read is null, and `facts` have it as it was returned."""
    text = node.get("config") if isinstance(node.get("config"), str) else None
    config = _parsed(text)
    metric = config.get("metric") if isinstance(config.get("metric"), dict) else {}
    assert isinstance(metric, dict)
    key = metric.get("name")
    prior = node.get("priorRuns")
    name = str(node["name"])
    return SweepRecord(
        sweep_id=name,
        facts=dumps(dict(node)),
        name=_text(node.get("displayName")) or _text(config.get("name")) or name,
        state=_text(node.get("state")),
        method=_text(node.get("method")) or _text(config.get("method")),
        description=_text(node.get("description")) or _text(config.get("description")),
        config=dumps(config) if config else None,
        config_yaml=text,
        metric=_text(key),
        goal=(_text(metric.get("goal")) or "minimize") if key else None,
        best_loss=_number(node.get("bestLoss")),
        runs_expected=valid_count(node["runCountExpected"]) if node.get("runCountExpected") is not None else None,
        prior_runs=dumps(_names(prior)) if prior else None,
        created_at=moment(node.get("createdAt")),
        updated_at=moment(node.get("updatedAt")),
        url=sweep_page(app_url, project.entity, project.project, name),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        value = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(value)
    return float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def _names(connection: Any) -> list[str]:
    try:
        return [str(edge["node"]["name"]) for edge in connection["edges"]]
    except UNREADABLE:
        return []


def _parsed(text: str | None) -> dict[str, Any]:
    """Return a config of YAML as plain values of JSON; {} if it cannot be read."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    left = [_MOST_VALUES]
    try:
        value = _plain(yaml.load(text or "", loader), left)  # noqa: S506
    except (yaml.YAMLError, *UNREADABLE):
        return {}
    return value if isinstance(value, dict) else {}


def _plain(value: Any, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("too many values")
    if isinstance(value, dict):
        return {str(key): _plain(item, left) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item, left) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
