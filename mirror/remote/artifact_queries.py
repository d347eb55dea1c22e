"""The GraphQL documents about artifacts. Each field also occurs in the official SDK's queries."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

_PLACE = "name project { name entity { name } }"
_PAGE = "pageInfo { endCursor hasNextPage }"

OF_COLLECTION = {
    **{name: name for name in ("description", "createdAt", "updatedAt")},
    "tags": "tags { edges { node { id name } } }",
}
OF_VERSION = {
    **{name: name for name in ("digest", "size", "fileCount", "createdAt", "updatedAt", "description", "metadata")},
    "versionIndex": "versionIndex",
    "ttlDurationSeconds": "ttlDurationSeconds",
    **{name: name for name in ("ttlIsInherited", "historyStep", "digestAlgorithm", "commitHash")},
    "tags": "tags { id name }",
    "aliases": f"aliases {{ alias artifactCollection {{ {_PLACE} }} }}",
    "createdBy": f"createdBy {{ ... on Run {{ {_PLACE} }} }}",
}
FACTS_OF_COLLECTION = ("createdAt", "updatedAt", "tags")
FACTS_OF_VERSION = (
    *("createdAt", "updatedAt", "ttlDurationSeconds", "ttlIsInherited", "historyStep", "digestAlgorithm", "commitHash"),
    "tags",
)
"""Fields that are stored as the server returned them, for clients that ask the mirror for them."""

SHOWING_CHANGE = ("updatedAt", "versionIndex")
COUNT = "ArtifactCollectionConnection.totalCount"
OPTIONAL = {
    COUNT,
    *(f"ArtifactCollection.{name}" for name in OF_COLLECTION),
    *(f"Artifact.{name}" for name in OF_VERSION),
}
"""Fields that a server may lack: they are left out then, and what they hold is null in the mirror."""


TYPES = """query MirrorArtifactTypes($entity: String!, $project: String!, $after: String, $first: Int) {
  project(name: $project, entityName: $entity) {
    artifactTypes(after: $after, first: $first) { edges { node { name } } pageInfo { endCursor hasNextPage } }
  }
}"""


def collections(operation: str, lacks: Container[str], *, versions: bool, by_type: bool) -> str:
    """Return the query for a page of collections, each with its newest complete version, and perhaps its versions.

    Of all types, or of one. Without the fields in `lacks`. Without filters, a server may also list versions that are
    deleted or not complete.
    """
    page = f"artifacts(first: $versions) {{ {_connection(tuple(OF_VERSION), lacks)} }}" if versions else ""
    declared = "$after: String, $first: Int, $committed: JSONString"
    declared += (", $versions: Int" if versions else "") + (", $type: String!" if by_type else "")
    opening, closing = ("artifactType(name: $type) {", "}") if by_type else ("", "")
    return f"""query {operation}($entity: String!, $project: String!, {declared}) {{
  project(name: $project, entityName: $entity) {{
    {opening} artifactCollections(after: $after, first: $first) {{
      {"" if COUNT in lacks else "totalCount"}
      edges {{ node {{ __typename id name defaultArtifactType {{ name }}
        {_selected("ArtifactCollection", OF_COLLECTION, tuple(OF_COLLECTION), lacks)}
        newest: artifacts(first: 1, filters: $committed) {{ {_connection(SHOWING_CHANGE, lacks)} }}
        {page} }} }}
      {_PAGE}
    }} {closing}
  }}
}}"""


def versions(count: int, lacks: Container[str]) -> str:
    """Return the query for a page of the versions of each of `count` collections."""
    declared = ", ".join(f"$type{i}: String!, $name{i}: String!, $after{i}: String" for i in range(count))
    below = _connection(tuple(OF_VERSION), lacks)
    selected = "\n".join(
        f"    c{i}: artifactType(name: $type{i}) {{ artifactCollection(name: $name{i}) {{ "
        f"artifacts(after: $after{i}, first: $first) {{ {below} }} }} }}"
        for i in range(count)
    )
    return (
        f"query MirrorVersions($entity: String!, $project: String!, $first: Int, {declared}) {{\n"
        f"  project(name: $project, entityName: $entity) {{\n{selected}\n  }}\n}}"
    )


def uses(count: int) -> str:
    """Return the query for the artifacts that each of `count` runs used and logged."""
    declared = ", ".join(f"$run{i}: String!, $in{i}: String, $out{i}: String" for i in range(count))
    below = f"edges {{ node {{ id versionIndex artifactType {{ name }} artifactSequence {{ {_PLACE} }} }} }} {_PAGE}"
    selected = "\n".join(
        f"    r{i}: run(name: $run{i}) {{ inputArtifacts(after: $in{i}, first: $first) {{ {below} }} "
        f"outputArtifacts(after: $out{i}, first: $first) {{ {below} }} }}"
        for i in range(count)
    )
    return (
        f"query MirrorUses($entity: String!, $project: String!, $first: Int, {declared}) {{\n"
        f"  project(name: $project, entityName: $entity) {{\n{selected}\n  }}\n}}"
    )


def of_artifacts(operation: str, count: int, variables: str, below: str, shared: str = "") -> str:
    """Return a query for fields of `count` artifacts, as `a0`, `a1`, ...; `{i}` in them is the artifact's index."""
    own = [f"$id{i}: ID!, {variables.format(i=i)}".removesuffix(", ") for i in range(count)]
    declared = ", ".join([*([shared] if shared else []), *own])
    filled = [below.format(i=i) if variables else below for i in range(count)]
    selected = "\n".join(f"  a{i}: artifact(id: $id{i}) {{ {filled[i]} }}" for i in range(count))
    return f"query {operation}({declared}) {{\n{selected}\n}}"


def by_client_ids(count: int) -> str:
    """Return the query for the server's ids of `count` artifacts, by the ids that clients gave them."""
    declared = ", ".join(f"$id{i}: ID!" for i in range(count))
    selected = "\n".join(f"  a{i}: clientIDMapping(clientID: $id{i}) {{ serverID }}" for i in range(count))
    return f"query MirrorClientIds({declared}) {{\n{selected}\n}}"


def _connection(of_version: Sequence[str], lacks: Container[str]) -> str:
    fields = _selected("Artifact", OF_VERSION, of_version, lacks)
    return f"totalCount edges {{ version node {{ id state {fields} }} }} {_PAGE}"


def _selected(kind: str, fields: Mapping[str, str], wanted: Sequence[str], lacks: Container[str]) -> str:
    return " ".join(fields[name] for name in wanted if f"{kind}.{name}" not in lacks)
