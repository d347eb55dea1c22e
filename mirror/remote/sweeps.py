"""What the server tells of sweeps. The mirror holds their runs alone."""

from __future__ import annotations

from typing import Any

from mirror.remote.client import NotFound, Server
from mirror.remote.errors import FeatureMissing
from mirror.store.records import ProjectKey

_OLD = "id name state bestLoss config"
_FIELDS = f"{_OLD} displayName method description createdAt updatedAt runCount runCountExpected"

_LIST = """query MirrorSweeps($entity: String!, $project: String!, $after: String, $first: Int) {
  project(name: $project, entityName: $entity) {
    sweeps(after: $after, first: $first) { edges { node { %s } } pageInfo { endCursor hasNextPage } }
  }
}"""
_ONE = """query MirrorSweep($entity: String!, $project: String!, $sweep: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) { %s } }
}"""


async def listed(server: Server, project: ProjectKey, per_page: int) -> list[dict[str, Any]]:
    """The sweeps of a project in the server's order. Raises NotFound for a project that is not there."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        data = await _asked(server, "MirrorSweeps", _LIST, project, after=after, first=per_page)
        if data.get("project") is None:
            raise NotFound(f"{server.base_url} has no project {project}", LookupError(str(project)))
        connection = data["project"]["sweeps"]
        found += [edge["node"] for edge in connection["edges"]]
        info = connection["pageInfo"]
        if not info["hasNextPage"] or info["endCursor"] == after:
            return found
        after = info["endCursor"]


async def one(server: Server, project: ProjectKey, name: str) -> dict[str, Any]:
    """What the server tells of one sweep. Raises NotFound."""
    data = await _asked(server, "MirrorSweep", _ONE, project, sweep=name)
    sweep: dict[str, Any] | None = (data.get("project") or {}).get("sweep")
    if sweep is None:
        raise NotFound(f"{server.base_url} has no sweep {project}/{name}", LookupError(name))
    return sweep


async def _asked(server: Server, name: str, query: str, project: ProjectKey, **variables: Any) -> dict[str, Any]:
    """The answer; servers that lack some of the fields are asked for those that every server has."""
    variables |= {"entity": project.entity, "project": project.project}
    try:
        return await server.graphql(name, query % _FIELDS, variables)
    except FeatureMissing:
        return await server.graphql(name, query % _OLD, variables)
