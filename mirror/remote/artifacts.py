"""Artifacts of a project: pages of collections and versions, what runs used and logged, and addresses of files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from mirror.remote import artifact_queries
from mirror.remote.client import Server
from mirror.remote.contents import Address
from mirror.remote.errors import FeatureMissing, Refused
from mirror.remote.run_records import moment
from mirror.store.artifact_records import Collection, Use, Version
from mirror.store.records import ProjectKey
from mirror.wandb_json import UNREADABLE, dumps, unreadable

PROBE_COLLECTIONS = 200
"""Collections in a page that only shows what changed."""

PAGE_COLLECTIONS = 100
PAGE_COLLECTION_VERSIONS = 5
"""In a page with everything: most collections have few versions, and the others are paged on their own."""

PAGE_VERSIONS = 100
PAGE_USES = 100

BY_TYPE = "artifacts of all types"
"""In `Server.missing_features`: the server lists the artifacts of one type at a time."""

COMMITTED = '{"state": "COMMITTED"}'
"""The filter for versions that are complete and not deleted."""

_NONE: dict[str, Any] = {"totalCount": 0, "edges": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}
_BOTH = ("inputArtifacts", "outputArtifacts")

_VERSION_NAME = re.compile(r"v?(\d{1,18})")


class Versions(Struct, frozen=True):
    """A page of versions: how many the collection has, those of the page, and the cursor of the next page."""

    total: int
    versions: list[Version]
    after: str | None


class Listed(Struct, frozen=True):
    """A collection with the first page of its versions."""

    collection: Collection
    page: Versions


class Page(Struct, frozen=True):
    """A page of collections: how many the project has, those of the page, and the cursor of the next page.

    An older server does not count them, or lists them by type only: then `next_type` is the cursor behind those of
    the same type.
    """

    total: int | None
    collections: list[Listed] = field(default_factory=list)
    after: str | None = None
    next_type: str | None = None


async def collections(server: Server, project: ProjectKey, after: str | None, *, first: int, versions: int) -> Page:
    """Return a page of the project's collections with their first `versions`; only their marks if that is 0.

    Raises FeatureMissing if the server does not list collections, and NotFound for a project that does not exist.
    """
    if BY_TYPE not in server.missing_features:
        try:
            return await _collections(server, project, after, first=first, versions=versions)
        except FeatureMissing as error:
            if ("Project", "artifactCollections") not in error.fields:
                raise
            server.missing_features.add(BY_TYPE)
    # The cursor of such a page: the types that are not listed completely, and the cursor within the first of them.
    types, within = json.loads(after) if after else (await _types(server, project), None)
    if not types:
        return Page(None)
    page = await _collections(server, project, within, first=first, versions=versions, kind=types[0])
    next_type = json.dumps([types[1:], None]) if len(types) > 1 else None
    following = next_type if page.after is None else json.dumps([types, page.after])
    return replace(page, total=None, after=following, next_type=next_type)


async def _collections(
    server: Server, project: ProjectKey, after: str | None, *, first: int, versions: int, kind: str | None = None
) -> Page:
    variables = _named(project) | {"after": after, "first": first, "committed": COMMITTED}
    variables |= ({"versions": versions} if versions else {}) | ({"type": kind} if kind is not None else {})
    operation = "MirrorCollections" if versions else "MirrorCollectionMarks"
    data = await _asked(
        server,
        operation,
        lambda lacks: artifact_queries.collections(operation, lacks, versions=bool(versions), by_type=kind is not None),
        variables,
        bulk=bool(versions),
        divisible=first > 1,
    )
    try:
        holder = data.get("project") or {}
        connection = (holder if kind is None else holder.get("artifactType") or {}).get("artifactCollections")
        if connection is None:
            return Page(0)
        nodes = [edge["node"] for edge in connection["edges"] if edge["node"]]
        listed = [_listed(project, node) for node in nodes]
        total = connection.get("totalCount")
        return Page(None if total is None else int(total), listed, _following(connection, after))
    except UNREADABLE as error:
        raise unreadable("a list of artifacts", error) from error


async def _types(server: Server, project: ProjectKey) -> list[str]:
    """Return the types of artifacts of a project."""
    found: list[str] = []
    after: str | None = None
    while True:
        variables = _named(project) | {"after": after, "first": PAGE_USES}
        data = await server.graphql("MirrorArtifactTypes", artifact_queries.TYPES, variables)
        try:
            connection = (data.get("project") or {}).get("artifactTypes") or _NONE
            found += [edge["node"]["name"] for edge in connection["edges"]]
            after = _following(connection, after)
        except UNREADABLE as error:
            raise unreadable("a list of types of artifacts", error) from error
        if after is None:
            return found


async def versions(
    server: Server, project: ProjectKey, wanted: Sequence[tuple[Collection, str | None]]
) -> list[Versions | None]:
    """Return a page of the versions of each collection, after this cursor; None for one that does not exist."""
    variables: dict[str, Any] = _named(project) | {"first": PAGE_VERSIONS}
    for index, (collection, after) in enumerate(wanted):
        variables |= {f"type{index}": collection.type, f"name{index}": collection.name, f"after{index}": after}
    data = await _asked(
        server,
        "MirrorVersions",
        lambda lacks: artifact_queries.versions(len(wanted), lacks),
        variables,
        bulk=True,
        divisible=len(wanted) > 1,
    )
    try:
        found = data.get("project") or {}
        nodes = [(found.get(f"c{index}") or {}).get("artifactCollection") for index in range(len(wanted))]
        return [
            _page(project, collection.name, node["artifacts"], after) if node and node["artifacts"] else None
            for node, (collection, after) in zip(nodes, wanted, strict=True)
        ]
    except UNREADABLE as error:
        raise unreadable("a list of artifact versions", error) from error


async def uses(server: Server, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, list[Use]]:
    """Return the artifacts that these runs used and logged. Runs that do not exist are left out."""
    found: dict[str, list[Use]] = {}
    cursors: dict[str, tuple[str | None, str | None]] = dict.fromkeys(run_ids, (None, None))
    while cursors:
        variables: dict[str, Any] = _named(project) | {"first": PAGE_USES}
        for index, (run_id, (of_inputs, of_outputs)) in enumerate(cursors.items()):
            variables |= {f"run{index}": run_id, f"in{index}": of_inputs, f"out{index}": of_outputs}
        document = artifact_queries.uses(len(cursors))
        data = await server.graphql("MirrorUses", document, variables, bulk=True, divisible=len(cursors) > 1)
        following: dict[str, tuple[str | None, str | None]] = {}
        try:
            answers = data.get("project") or {}
            for index, (run_id, before) in enumerate(cursors.items()):
                if (run := answers.get(f"r{index}")) is None:
                    continue
                found.setdefault(run_id, []).extend(_used("input", run["inputArtifacts"]))
                found[run_id].extend(_used("output", run["outputArtifacts"]))
                pages = [_following(run[name], at) for name, at in zip(_BOTH, before, strict=True)]
                if any(pages):
                    # A list that has ended is continued at its end, where nothing follows.
                    ends = [run[name]["pageInfo"]["endCursor"] or at for name, at in zip(_BOTH, before, strict=True)]
                    following[run_id] = (ends[0], ends[1])
        except UNREADABLE as error:
            raise unreadable("a list of a run's artifacts", error) from error
        cursors = following
    return {run_id: list(dict.fromkeys(several)) for run_id, several in found.items()}


async def manifest_addresses(server: Server, artifact_ids: Sequence[str]) -> dict[str, str | None]:
    """Return where the manifest of each artifact is; None if it has none. Artifacts that do not exist are left out."""
    variables = {f"id{index}": artifact_id for index, artifact_id in enumerate(artifact_ids)}
    document = artifact_queries.of_artifacts(
        "MirrorManifests", len(artifact_ids), "", "currentManifest { file { directUrl } }"
    )
    data = await server.graphql("MirrorManifests", document, variables, bulk=True, divisible=len(artifact_ids) > 1)
    try:
        answers = {artifact_id: data.get(f"a{index}") for index, artifact_id in enumerate(artifact_ids)}
        return {
            artifact_id: ((answer.get("currentManifest") or {}).get("file") or {}).get("directUrl")
            for artifact_id, answer in answers.items()
            if answer
        }
    except UNREADABLE as error:
        raise unreadable("the address of a manifest", error) from error


async def by_client_ids(server: Server, client_ids: Sequence[str]) -> dict[str, str | None]:
    """Return the server's id of each artifact that a client gave one of these ids; None if it knows none."""
    variables = {f"id{index}": client_id for index, client_id in enumerate(client_ids)}
    document = artifact_queries.by_client_ids(len(client_ids))
    data = await server.graphql("MirrorClientIds", document, variables, bulk=True)
    try:
        return {client_id: (data.get(f"a{index}") or {}).get("serverID") for index, client_id in enumerate(client_ids)}
    except UNREADABLE as error:
        raise unreadable("the ids of artifacts", error) from error


async def addresses(server: Server, names: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Address]:
    """Return the address of each of these files, named by artifact; files that do not exist any more are left out."""
    variables: dict[str, Any] = {"first": max(map(len, names.values()), default=0)}
    for index, (artifact_id, wanted) in enumerate(names.items()):
        variables |= {f"id{index}": artifact_id, f"names{index}": list(wanted)}
    document = artifact_queries.of_artifacts(
        "MirrorArtifactContents",
        len(names),
        "$names{i}: [String!]",
        "files(names: $names{i}, first: $first) {{ edges {{ node {{ name displayName directUrl url sizeBytes }} }} }}",
        "$first: Int",
    )
    data = await server.graphql("MirrorArtifactContents", document, variables, bulk=True, divisible=len(names) > 1)
    found: dict[tuple[str, str], Address] = {}
    try:
        for index, (artifact_id, wanted) in enumerate(names.items()):
            expected = set(wanted)
            for edge in ((data.get(f"a{index}") or {}).get("files") or {}).get("edges") or ():
                node = edge["node"]
                name = node["name"] if node["name"] in expected else node["displayName"]
                if url := node["directUrl"] or node["url"]:
                    found[artifact_id, name] = Address(url, int(node["sizeBytes"] or 0), None, None, None)
    except UNREADABLE as error:
        raise unreadable("the address of an artifact's file", error) from error
    return found


async def _asked(
    server: Server, operation: str, document: Callable[[Container[str]], str], variables: Mapping[str, Any], **how: bool
) -> dict[str, Any]:
    """Send a document; without the optional fields that the server refuses by name."""
    while True:
        try:
            return await server.graphql(operation, document(server.missing_features), variables, **how)
        except Refused as error:
            refused = {
                f"{kind}.{name}" for kind, name in error.fields
            } & artifact_queries.OPTIONAL - server.missing_features
            if not refused:
                raise
            server.missing_features |= refused


def _named(project: ProjectKey) -> dict[str, Any]:
    return {"entity": project.entity, "project": project.project}


def _following(connection: Mapping[str, Any], after: str | None) -> str | None:
    """Return the cursor of the next page; None at the end, and for a server that returns the same page again."""
    info = connection["pageInfo"]
    following: str | None = info["endCursor"]
    return following if info["hasNextPage"] and connection["edges"] and following != after else None


def _listed(project: ProjectKey, node: Mapping[str, Any]) -> Listed:
    committed = node["newest"] or _NONE
    newest = committed["edges"][0] if committed["edges"] else {}
    about = newest.get("node") or {}
    mark = [
        *(node.get(name) for name in ("name", "description", "updatedAt")),
        *(committed["totalCount"], newest.get("version")),
        *(about.get(name) for name in ("id", "updatedAt")),
    ]
    collection = Collection(
        collection_id=node["id"],
        type=node["defaultArtifactType"]["name"],
        name=node["name"],
        kind=node["__typename"],
        description=node.get("description"),
        created_at=moment(node.get("createdAt")),
        mark=json.dumps(mark),
        committed=int(committed["totalCount"]),
        facts=_facts(node, artifact_queries.FACTS_OF_COLLECTION),
    )
    page = _page(project, collection.name, node.get("artifacts") or _NONE, None)
    return Listed(collection, page)


def _page(project: ProjectKey, collection: str, connection: Mapping[str, Any], after: str | None) -> Versions:
    found = [_version(project, collection, edge) for edge in connection["edges"]]
    known = [version for version in found if version is not None]
    return Versions(int(connection["totalCount"]), known, _following(connection, after))


def _version(project: ProjectKey, collection: str, edge: Mapping[str, Any]) -> Version | None:
    """Return a version; None for one without a number, as while its upload starts."""
    node = edge["node"]
    number = None if node is None else _number(edge.get("version"), node.get("versionIndex"))
    if node is None or number is None:
        return None
    metadata = node.get("metadata")
    return Version(
        number=number,
        artifact_id=node["id"],
        digest=node.get("digest"),
        size=_count(node.get("size")),
        file_count=_count(node.get("fileCount")),
        state=node["state"] or "PENDING",
        created_at=moment(node.get("createdAt")),
        updated_at=moment(node.get("updatedAt")),
        run=_run(node.get("createdBy")),
        description=node.get("description"),
        metadata=metadata if metadata is None or isinstance(metadata, str) else dumps(metadata),
        # Negative for no limit, and for the limit of the team.
        ttl_s=_count(node.get("ttlDurationSeconds")) or None,
        aliases=tuple(_aliases(project, collection, node.get("aliases") or ())),
        facts=_facts(node, artifact_queries.FACTS_OF_VERSION),
    )


def _facts(node: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return these fields as JSON text; those that the server lacks are left out."""
    return dumps({name: node[name] for name in names if name in node})


def _number(*candidates: Any) -> int | None:
    for candidate in candidates:
        if candidate is not None and (match := _VERSION_NAME.fullmatch(str(candidate))):
            return int(match[1])
    return None


def _count(value: Any) -> int | None:
    number = None if value is None else int(value)
    return None if number is None or number < 0 else number


def _run(creator: Mapping[str, Any] | None) -> tuple[str | None, str | None, str | None]:
    """Return entity, project and id of the run that logged a version; nothing for one that a user made."""
    if not creator or not creator.get("name"):
        return None, None, None
    project = creator.get("project") or {}
    return (project.get("entity") or {}).get("name"), project.get("name"), creator["name"]


def _aliases(project: ProjectKey, collection: str, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the aliases in this collection: the server lists those of every collection that the version is in."""
    found = []
    for node in nodes:
        place = node.get("artifactCollection")
        home = (place or {}).get("project") or {}
        where = ((home.get("entity") or {}).get("name"), home.get("name"), (place or {}).get("name"))
        here = place is None or where == (project.entity, project.project, collection)
        if here and not _VERSION_NAME.fullmatch(node["alias"]):
            found.append(node["alias"])
    return list(dict.fromkeys(found))


def _used(relation: str, connection: Mapping[str, Any]) -> list[Use]:
    found = []
    for edge in connection["edges"]:
        node = edge["node"]
        number = None if node is None else _number(node["versionIndex"])
        if number is None or not node["artifactSequence"]:
            continue
        place = node["artifactSequence"]
        home = place["project"] or {}
        entity, project = (home.get("entity") or {}).get("name") or "", home.get("name") or ""
        kind = (node["artifactType"] or {}).get("name")
        found.append(Use(relation, entity, project, kind, place["name"], number, node["id"]))
    return found
