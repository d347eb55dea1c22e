"""Files of a run: their list and their content. They stay on the server; the mirror stores none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mirror.remote.client import NotFound, Server
from mirror.store.records import ProjectKey

FILES = """query MirrorFiles($entity: String!, $project: String!, $run: String!, $after: String, $first: Int,
    $names: [String], $pattern: String) {
  project(name: $project, entityName: $entity) { run(name: $run) {
    files(names: $names, pattern: $pattern, after: $after, first: $first) {
      edges { node { id name url(upload: false) directUrl sizeBytes mimetype updatedAt md5 } }
      pageInfo { endCursor hasNextPage }
    }
  } }
}"""


async def listed(
    server: Server, project: ProjectKey, run_id: str, names: Sequence[str], pattern: str | None, per_page: int
) -> list[dict[str, Any]]:
    """Return the server's entry of each requested file. Raises NotFound for a run that does not exist."""
    files: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        variables = {
            "entity": project.entity,
            "project": project.project,
            "run": run_id,
            "after": after,
            "first": per_page,
            "names": list(names),
            "pattern": pattern,
        }
        data = await server.graphql("MirrorFiles", FILES, variables)
        run = (data.get("project") or {}).get("run")
        if run is None:
            raise NotFound(f"{server.base_url} has no run {project}/{run_id}", LookupError(run_id))
        connection = run["files"]
        files += [edge["node"] for edge in connection["edges"]]
        info = connection["pageInfo"]
        if not info["hasNextPage"] or info["endCursor"] == after:
            return files
        after = info["endCursor"]
