"""Artifacts in W&B's form: types, collections, versions, and what runs used and logged."""

from __future__ import annotations

from collections.abc import Collection as Several
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from mirror.serve import runs
from mirror.serve.artifact_files import manifest, page
from mirror.serve.context import Context, path_of
from mirror.serve.documents import Field, NotServed, Resolver, ServerKnowsBetter
from mirror.serve.pages import connection, cursor, start_of
from mirror.serve.touched import ARTIFACTS
from mirror.snapshot import artifact_versions, facts
from mirror.snapshot.artifact_versions import COMMITTED, Collection, Version
from mirror.snapshot.paths import Project

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]

MOST = 1000
"""Entries in one page."""

_ORDERS = {
    **dict.fromkeys(("versionIndex", "version"), lambda one: one.number),
    **dict.fromkeys(("createdAt", "created_at"), lambda one: (str(one.created_at), one.number)),
}


# Where the mirror may answer


def _require_fresh(context: Context, project: Project) -> None:
    """Raise ServerKnowsBetter if artifacts of the project were changed through this endpoint since they were listed."""
    touched = context.touched((ARTIFACTS, *project))
    if touched is None or context.without_server:
        return
    listed_at = artifact_versions.listed_at(context.connection, project)
    if listed_at is None or listed_at < touched:
        raise ServerKnowsBetter(f"artifacts of {project} were changed since they were listed")


def _require_listed(context: Context, project: Project) -> None:
    _require_fresh(context, project)
    if not artifact_versions.listed(context.connection, project):
        raise NotServed(f"the artifacts of {project} are not mirrored (sync.artifacts)")


def _project(context: Context, key: Project) -> Source:
    found = context.projects(*key)
    if not found:
        raise NotServed(f"the project {key} is not mirrored")
    return found[0]


def _page(items: Sequence[Any], arguments: Arguments, name: str, **beside: Any) -> dict[str, Any]:
    """Return a page of sources; `beside` has what an edge has besides, by the field's name, as a function."""
    start = start_of(arguments)
    first = arguments.get("first")
    end = start + min(MOST if first is None else max(first, 0), MOST)
    edges = [
        {"node": item, "cursor": cursor(name, place), **{key: find(item) for key, find in beside.items()}}
        for place, item in enumerate(items[start:end], start=start + 1)
    ]
    return connection(edges, start, more=end < len(items), total=len(items))


# Sources


def _of_collection(found: Collection) -> dict[str, Any]:
    source = {
        "__typename": found.kind,
        "held": found,
        "id": found.collection_id,
        "name": found.name,
        "description": found.description,
        "defaultArtifactType": {"name": found.type, "key": found.key},
        "createdAt": facts.instant(found.created_at),
    }
    return source | {name: found.facts[name] for name in ("createdAt", "updatedAt", "tags") if name in found.facts}


def _of_version(found: Version) -> dict[str, Any]:
    values = {
        "id": found.artifact_id,
        "versionIndex": found.number,
        "size": found.size,
        "digest": found.digest,
        "fileCount": found.file_count,
        "createdAt": facts.instant(found.created_at),
    }
    # What is null here was not reported by the server, which always has these.
    known = {name: value for name, value in values.items() if value is not None}
    plain = {"held": found, "state": found.state, "description": found.description, "metadata": found.metadata}
    return plain | known | dict(found.facts)


def _of_membership(found: Version, collection: Collection) -> dict[str, Any]:
    key = facts.own_id("ArtifactCollectionMembership", collection.collection_id, found.artifact_id)
    source = {"held": found, "collection": collection, "id": key, "versionIndex": found.number}
    # When a version was linked to a collection is not mirrored.
    return source if collection.is_link else source | {"createdAt": _of_version(found).get("createdAt")}


def _alias(collection: Collection, alias: str) -> dict[str, Any]:
    key = facts.own_id("ArtifactAlias", collection.collection_id, alias)
    return {"id": key, "alias": alias, "artifactCollection": _of_collection(collection)}


def _collection_of(context: Context, found: Version) -> Collection:
    find = partial(artifact_versions.collection_by_id, context.connection, found.collection_id)
    collection = context.remembered(("artifact collection", found.collection_id), find)
    if collection is None:
        raise NotServed(f"the collection of {found} is not mirrored")
    return collection


def _source_of(context: Context, found: Version) -> Version:
    """Return the version that was logged, for one that may be a link."""
    source = artifact_versions.by_id(context.connection, found.artifact_id)
    if source is None:
        raise NotServed(f"the version that {found} links to is not mirrored")
    return source


def _of_versions(context: Context, found: Sequence[Version], fields: Several[str]) -> list[dict[str, Any]]:
    """Return the sources of several versions; aliases, if they are among the fields, are read for all together."""
    sources = [_of_version(one) for one in found]
    if "aliases" in fields:
        places = artifact_versions.memberships(context.connection, {one.artifact_id for one in found})
        for source in sources:
            source["places"] = places.get(source["id"], [])
    return sources


# Queries


def _by_id(_source: Any, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    found = artifact_versions.by_id(context.connection, arguments["id"])
    if found is None:
        raise NotServed(f"the artifact {arguments['id']} is not mirrored")
    _require_fresh(context, found.key)
    return _of_version(found)


def _collection_by_id(_source: Any, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    found = artifact_versions.collection_by_id(context.connection, arguments["id"])
    if found is None:
        raise NotServed(f"the collection {arguments['id']} is not mirrored")
    _require_listed(context, found.key)
    return _of_collection(found)


def _membership(context: Context, key: Project, name: str) -> dict[str, Any]:
    _require_fresh(context, key)
    found = artifact_versions.version(context.connection, key, name)
    if found is None:
        raise NotServed(f"the artifact {key}/{name} is not mirrored")
    return _of_membership(found, _collection_of(context, found))


def _collection(context: Context, key: Project, name: str, type_name: str | None = None) -> dict[str, Any]:
    _require_listed(context, key)
    found = artifact_versions.collection(context.connection, key, name)
    if found is None or type_name not in (None, found.type):
        raise NotServed(f"the collection {key}/{name} is not mirrored")
    return _of_collection(found)


def _collections(context: Context, key: Project, type_name: str | None, arguments: Arguments) -> dict[str, Any]:
    _require_listed(context, key)
    if arguments.get("filters") not in (None, "", "{}") or arguments.get("order"):
        raise NotServed("a filter or an order of collections")
    found = artifact_versions.collections(context.connection, key, type_name)
    return _page([_of_collection(one) for one in found], arguments, "collections")


def _versions(source: Source, context: Context, field: Field, arguments: Arguments) -> dict[str, Any]:
    collection: Collection = source["held"]
    wanted = _filter(arguments)
    found = artifact_versions.versions(context.connection, collection.key, collection.name)
    if wanted:
        found = [one for one in found if one.state == COMMITTED]
    if order := arguments.get("order"):
        if order.lstrip("+-") not in _ORDERS:
            raise NotServed(f"versions in the order {order}")
        found.sort(key=_ORDERS[order.lstrip("+-")], reverse=order.startswith("-"))
    if collection.is_link:
        raise NotServed(f"{collection.key}/{collection.name} holds links")
    sources = _of_versions(context, found, field.names("edges", "node"))
    return _page(sources, arguments, "versions", version=lambda one: f"v{one['held'].number}")


def _filter(arguments: Arguments) -> bool:
    """Return True if only committed versions are wanted, as by the official client. Raises NotServed for others."""
    try:
        wanted = orjson.loads(arguments.get("filters") or "{}")
    except (ValueError, TypeError):
        wanted = None
    if wanted not in ({}, {"state": COMMITTED}):
        raise NotServed("a filter of versions")
    return bool(wanted)


def _collection_aliases(source: Source, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    collection: Collection = source["held"]
    found = artifact_versions.versions(context.connection, collection.key, collection.name)
    names = dict.fromkeys(alias for one in found for alias in one.aliases)
    return _page([_alias(collection, name) for name in names], arguments, "aliases")


def _of_run(relation: str) -> Resolver:
    def answer(run: Source, context: Context, field: Field, arguments: Arguments) -> dict[str, Any]:
        path = "/".join(path_of(run))
        touched = context.touched((ARTIFACTS, *path_of(run)))
        pulled_at = artifact_versions.pulled_at(context.connection, run["rid"])
        if touched is not None and not context.without_server and (pulled_at is None or pulled_at < touched):
            raise ServerKnowsBetter(f"what {path} used or logged was changed since it was pulled")
        found = artifact_versions.of_run(context.connection, run["rid"], relation)
        if found is None:
            raise NotServed(f"what {path} used and logged is not mirrored (sync.artifacts)")
        return _page(_of_versions(context, found, field.names("edges", "node")), arguments, relation)

    return answer


# Of a version


def _aliases(source: Source, context: Context, *_: Any) -> list[dict[str, Any]]:
    places = source.get("places")
    if places is None:
        places = artifact_versions.memberships(context.connection, [source["id"]]).get(source["id"], [])
    return [_alias(_collection_of(context, one), alias) for one in places for alias in one.aliases]


def _created_by(source: Source, context: Context, *_: Any) -> dict[str, Any] | None:
    held: Version = source["held"]
    if held.run is None:
        return None
    entity, project, run_id = held.run
    row = runs.row_of(context.connection, _project(context, Project(entity, project)), run_id)
    if row is None:
        raise NotServed(f"the run {'/'.join(held.run)} is not mirrored")
    return {**row, "__typename": "Run"}


def _used_by(source: Source, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    """Return the mirrored runs that used it; the server may know others."""
    if not context.without_server:
        raise ServerKnowsBetter("runs that are not mirrored may have used the artifact")
    rows = []
    for entity, project, run_id in artifact_versions.users(context.connection, source["id"]):
        row = runs.row_of(context.connection, _project(context, Project(entity, project)), run_id)
        rows += [] if row is None else [row]
    return _page(rows, arguments, "users")


COLLECTION: dict[str, Resolver] = {
    "project": lambda source, context, *_: _project(context, source["held"].key),
    "aliases": _collection_aliases,
    "artifacts": _versions,
    "artifactMembership": lambda source, context, _, arguments: _membership(
        context, source["held"].key, f"{source['held'].name}:{arguments['aliasName']}"
    ),
}
RESOLVERS: dict[str, dict[str, Resolver]] = {
    "ArtifactSequence": COLLECTION,
    "ArtifactPortfolio": COLLECTION,
    "ArtifactType": {
        "artifactCollection": lambda kind, context, _, arguments: _collection(
            context, kind["key"], arguments["name"], kind["name"]
        ),
        "artifactCollections": lambda kind, context, _, arguments: _collections(
            context, kind["key"], kind["name"], arguments
        ),
    },
    "ArtifactCollectionMembership": {
        "aliases": lambda source, *_: [_alias(source["collection"], alias) for alias in source["held"].aliases],
        "artifactCollection": lambda source, *_: _of_collection(source["collection"]),
        "artifact": lambda source, context, *_: _of_version(_source_of(context, source["held"])),
        "files": page,
    },
    "Artifact": {
        "artifactSequence": lambda source, context, *_: _of_collection(_collection_of(context, source["held"])),
        "artifactType": lambda source, *_: {"name": source["held"].type, "key": source["held"].key},
        "aliases": _aliases,
        "createdBy": _created_by,
        "usedBy": _used_by,
        "currentManifest": manifest,
        "files": page,
    },
}
QUERY: dict[str, Resolver] = {"artifact": _by_id, "artifactCollection": _collection_by_id}
PROJECT: dict[str, Resolver] = {
    "artifact": lambda project, context, _, arguments: _of_version(
        _source_of(context, _membership(context, project["key"], arguments["name"])["held"])
    ),
    "artifactType": lambda project, _, __, arguments: {"name": arguments["name"], "key": project["key"]},
    "artifactCollection": lambda project, context, _, arguments: _collection(
        context, project["key"], arguments["name"]
    ),
    "artifactCollections": lambda project, context, _, arguments: _collections(
        context, project["key"], None, arguments
    ),
    "artifactCollectionMembership": lambda project, context, _, arguments: _membership(
        context, project["key"], arguments["name"]
    ),
}
RUN: dict[str, Resolver] = {"inputArtifacts": _of_run("input"), "outputArtifacts": _of_run("output")}
