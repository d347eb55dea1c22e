"""Resolvers of artifacts: types, collections, versions, memberships, manifests and files."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from mirror.sandbox import instants, jsontext
from mirror.sandbox.artifacts import Artifact, Collection, address
from mirror.sandbox.context import Context
from mirror.sandbox.documents import Resolver
from mirror.sandbox.errors import Refused
from mirror.sandbox.fields import MISSING, walk
from mirror.sandbox.filters import compile_filter
from mirror.sandbox.listing import connection
from mirror.sandbox.manifests import Entry
from mirror.sandbox.run import Project, Run

Arguments = Mapping[str, Any]
Getter = Callable[[Any], Any]
INHERITED = -2
"""`ttlDurationSeconds` of a version that has no lifetime of its own."""


class Kind(Struct, frozen=True):
    """A type of artifacts in a project."""

    project: Project
    name: str
    collections: tuple[Collection, ...]


class Membership(Struct, frozen=True):
    """A version as a member of its collection."""

    collection: Collection
    artifact: Artifact

    @property
    def number(self) -> int | None:
        """The number of the version in this collection; None before it is committed."""
        versions = self.collection.versions
        return versions.index(self.artifact) if self.artifact in versions else None

    @property
    def created_at(self) -> datetime:
        """When it was logged, or linked, to this collection."""
        number = self.number
        if number is None or not self.collection.portfolio:
            return self.artifact.created_at
        return self.collection.linked_at[number]


def _id(kind: str, *parts: object) -> str:
    return base64.b64encode(":".join((kind, *map(str, parts))).encode()).decode()


# Filters and orders

_ARTIFACT: dict[str, Getter] = {
    "state": lambda artifact: artifact.state,
    "digest": lambda artifact: artifact.digest,
    "description": lambda artifact: artifact.description,
    "createdAt": lambda artifact: artifact.created_at,
    "updatedAt": lambda artifact: artifact.updated_at,
    "versionIndex": lambda artifact: artifact.version,
    "alias": lambda artifact: artifact.aliases,
    "tags": lambda artifact: artifact.tags,
}
_COLLECTION: dict[str, Getter] = {
    "name": lambda collection: collection.name,
    "description": lambda collection: collection.description,
    "createdAt": lambda collection: collection.created_at,
    "updatedAt": lambda collection: collection.updated_at or collection.created_at,
    "tags": lambda collection: collection.tags,
}
_ALIASES = {"created_at": "createdAt", "updated_at": "updatedAt", "version": "versionIndex"}


def _selected(items: Sequence[Any], columns: Mapping[str, Getter], arguments: Arguments) -> list[Any]:
    """Return the items that match `filters`, in the order of `order`. Refuses unknown columns."""

    def find(key: str) -> Getter:
        first, _, rest = key.partition(".")
        if first == "metadata" and rest and columns is _ARTIFACT:
            return lambda artifact: walk(jsontext.read(artifact.metadata or "{}"), rest.split("."))
        name = _ALIASES.get(key, key)
        if name not in columns:
            raise Refused(f"invalid filters: unknown field: {key}", 400)
        get = columns[name]
        return lambda item: MISSING if (value := get(item)) is None else value

    check = compile_filter(arguments.get("filters"), find=find)
    found = [item for item in items if check is None or check(item)]
    order = arguments.get("order")
    if order:
        name = _ALIASES.get(order.lstrip("+-"), order.lstrip("+-"))
        if name not in columns or name == "tags":
            raise Refused(f"invalid order: {order}", 400)
        get = columns[name]
        present = sorted((item for item in found if get(item) is not None), key=get, reverse=order.startswith("-"))
        found = present + [item for item in found if get(item) is None]
    return found


def _paged(items: Sequence[Any], arguments: Arguments) -> dict[str, Any]:
    return connection(items, arguments.get("after"), arguments.get("first"))


# Projects and types


def _known(project: Project, context: Context) -> dict[str, Collection]:
    return context.world.artifacts.of_project(project.entity, project.name)


def kinds(project: Project, context: Context) -> list[Kind]:
    """Return the types of artifacts of a project, in the order of their first collection."""
    found: dict[str, list[Collection]] = {}
    for collection in _known(project, context).values():
        found.setdefault(collection.kind, []).append(collection)
    return [Kind(project, name, tuple(collections)) for name, collections in found.items()]


def _kind(project: Project, context: Context, arguments: Arguments) -> Kind | None:
    return next((kind for kind in kinds(project, context) if kind.name == arguments["name"]), None)


def _collections(items: Sequence[Collection], arguments: Arguments) -> dict[str, Any]:
    # The default order is the newest first.
    newest = sorted(items, key=lambda collection: collection.number, reverse=True)
    return _paged(_selected(newest, _COLLECTION, arguments), arguments)


def _named(project: Project, context: Context, name: str) -> Membership | None:
    """Return the version that `collection:alias` names; without an alias, the latest."""
    collection_name, _, alias = name.partition(":")
    collection = _known(project, context).get(collection_name)
    return None if collection is None else _membership(collection, alias or "latest")


def _membership(collection: Collection, alias: str) -> Membership | None:
    found = collection.find(alias)
    return None if found is None else Membership(collection, found)


def _artifact_named(project: Project, context: Context, arguments: Arguments) -> Artifact | None:
    found = _named(project, context, arguments["name"])
    return None if found is None else found.artifact


PROJECT: dict[str, Resolver] = {
    "artifact": _artifact_named,
    "artifactType": _kind,
    "artifactTypes": lambda project, context, arguments: _paged(kinds(project, context), arguments),
    "artifactCollection": lambda project, context, arguments: _known(project, context).get(arguments["name"]),
    "artifactCollections": lambda project, context, arguments: _collections(
        list(_known(project, context).values()), arguments
    ),
    "artifactCollectionMembership": lambda project, context, arguments: _named(project, context, arguments["name"]),
}
RUN: dict[str, Resolver] = {
    "inputArtifacts": lambda run, _, arguments: _paged(run.inputs, arguments),
    "outputArtifacts": lambda run, _, arguments: _paged(run.outputs, arguments),
}


def _client_id(_source: Any, context: Context, arguments: Arguments) -> dict[str, str] | None:
    found = context.world.artifacts.by_client_id(arguments["clientID"])
    return None if found is None else {"serverID": found.storage_id}


QUERY: dict[str, Resolver] = {
    "artifact": lambda _, context, arguments: context.world.artifacts.find(arguments["id"]),
    "artifactCollection": lambda _, context, arguments: context.world.artifacts.collection(arguments["id"]),
    "clientIDMapping": _client_id,
}

# Collections


def _versions(collection: Collection, _context: Context, arguments: Arguments) -> dict[str, Any]:
    # The default order is the newest first.
    page = _paged(_selected(collection.versions[::-1], _ARTIFACT, arguments), arguments)
    for edge in page["edges"]:
        edge["version"] = f"v{collection.versions.index(edge['node'])}"
    return page


def tag_node(name: str) -> dict[str, str]:
    """Return a tag as the API returns it."""
    return {"id": _id("Tag", name), "name": name}


def _alias(collection: Collection, alias: str) -> dict[str, Any]:
    return {"id": _id("ArtifactAlias", collection.number, alias), "alias": alias, "artifactCollection": collection}


def _kind_of(collection: Collection, context: Context) -> Kind:
    project = context.world.add_project(collection.entity, collection.project)
    return next(kind for kind in kinds(project, context) if kind.name == collection.kind)


COLLECTION: dict[str, Resolver] = {
    "id": lambda collection, _, __: collection.storage_id,
    "name": lambda collection, _, __: collection.name,
    "description": lambda collection, _, __: collection.description,
    "createdAt": lambda collection, _, __: instants.text(collection.created_at),
    "updatedAt": lambda collection, _, __: instants.text(collection.updated_at or collection.created_at),
    "project": lambda collection, context, __: context.world.find_project(collection.entity, collection.project),
    "defaultArtifactType": lambda collection, context, __: _kind_of(collection, context),
    "tags": lambda collection, _, __: {"edges": [{"node": tag_node(name)} for name in collection.tags]},
    "aliases": lambda collection, _, arguments: _paged(
        [_alias(collection, alias) for alias in collection.aliases], arguments
    ),
    "artifacts": _versions,
    "artifactMembership": lambda collection, _, arguments: _membership(collection, arguments["aliasName"]),
}
SEQUENCE: dict[str, Resolver] = {
    **COLLECTION,
    "latestArtifact": lambda collection, _, __: collection.latest,
    "digestAlgorithm": lambda _, __, ___: "MANIFEST_MD5",
}
KIND: dict[str, Resolver] = {
    "id": lambda kind, _, __: _id("ArtifactType", kind.project.number, kind.name),
    "name": lambda kind, _, __: kind.name,
    "description": lambda _, __, ___: None,
    "createdAt": lambda kind, _, __: instants.text(min(each.created_at for each in kind.collections)),
    "artifactCollection": lambda kind, _, arguments: next(
        (each for each in kind.collections if each.name == arguments["name"]), None
    ),
    "artifactCollections": lambda kind, _, arguments: _collections(kind.collections, arguments),
}
MEMBERSHIP: dict[str, Resolver] = {
    "id": lambda member, _, __: _id("ArtifactCollectionMembership", member.collection.number, member.artifact.number),
    "versionIndex": lambda member, _, __: member.number,
    "createdAt": lambda member, _, __: instants.text(member.created_at),
    "aliases": lambda member, _, __: [
        _alias(member.collection, alias) for alias in member.collection.aliases_of(member.artifact)
    ],
    "artifactCollection": lambda member, _, __: member.collection,
    "artifact": lambda member, _, __: member.artifact,
    "files": lambda member, context, arguments: _files(member.artifact, context, arguments),
}

# Versions


def _files(artifact: Artifact, context: Context, arguments: Arguments) -> dict[str, Any]:
    names = arguments.get("names")
    found = [entry for path, entry in sorted(artifact.entries.items()) if not names or path in names]
    return _paged([file_node(context, artifact, entry) for entry in found], arguments)


def _files_of_entries(artifact: Artifact, context: Context, arguments: Arguments) -> dict[str, Any]:
    wanted = [given["name"] for given in arguments.get("entries") or ()]
    found = [artifact.entries[name] for name in wanted if name in artifact.entries]
    return _paged([file_node(context, artifact, entry) for entry in found], arguments)


def file_node(context: Context, artifact: Artifact, entry: Entry) -> dict[str, Any]:
    """Return a file of an artifact as the API returns it; the address of a reference is the one it refers to."""
    stored = address(artifact, entry) if entry.ref is None else None
    direct = entry.ref if stored is None else context.signed("GET", f"/storage/artifacts/{stored}")
    return {
        "id": _id("ArtifactFile", artifact.number, entry.path),
        "name": entry.path,
        "displayName": entry.path,
        "url": None if stored is None else _keyed_address(context, artifact, entry),
        "directUrl": direct,
        "sizeBytes": entry.size or 0,
        "storagePath": None if stored is None else f"wandb_artifacts/{stored}",
        "mimetype": mimetypes.guess_type(entry.path)[0] or "application/octet-stream",
        "updatedAt": instants.text(artifact.created_at),
        "digest": entry.digest,
        "md5": entry.digest if stored is not None else None,
        "artifact": artifact,
    }


def _keyed_address(context: Context, artifact: Artifact, entry: Entry) -> str:
    """Return the address of a file that needs the key."""
    home = artifact.collection
    digest = base64.b64decode(entry.digest).hex()
    if artifact.layout == "V1":
        return f"{context.url}/artifacts/{quote(home.entity)}/{digest}"
    parts = (home.entity, home.project, home.name, artifact.storage_id, entry.birth_id or "", digest)
    name = entry.path.rpartition("/")[2]
    return f"{context.url}/artifactsV2/default/" + "/".join(quote(part, safe="") for part in (*parts, name))


def manifest_node(context: Context, artifact: Artifact) -> dict[str, Any]:
    """Return the manifest of an artifact as the API returns it."""
    path = f"/storage/manifests/{artifact.key}"
    return {
        "id": _id("ArtifactManifest", artifact.number),
        "file": {
            "id": _id("File", "manifest", artifact.number),
            "name": "wandb_manifest.json",
            "directUrl": context.signed("GET", path),
            "uploadUrl": context.signed("PUT", path),
            "uploadHeaders": [],
        },
    }


def _creator(artifact: Artifact, context: Context, _arguments: Arguments) -> Any:
    """Return the run that logged it, if it still exists."""
    return context.world.by_storage_id(artifact.run_id or "")


def _users(artifact: Artifact, context: Context, arguments: Arguments) -> dict[str, Any]:
    runs = [run for project in context.world.projects.values() for run in project.runs.values()]
    return _paged([run for run in runs if artifact in run.inputs], arguments)


ARTIFACT: dict[str, Resolver] = {
    "id": lambda artifact, _, __: artifact.storage_id,
    "artifactSequence": lambda artifact, _, __: artifact.collection,
    "artifactType": lambda artifact, context, __: _kind_of(artifact.collection, context),
    "versionIndex": lambda artifact, _, __: artifact.version,
    "description": lambda artifact, _, __: artifact.description,
    "metadata": lambda artifact, _, __: artifact.metadata,
    "ttlDurationSeconds": lambda artifact, _, __: INHERITED if artifact.ttl_seconds is None else artifact.ttl_seconds,
    "ttlIsInherited": lambda artifact, _, __: artifact.ttl_seconds is None,
    "tags": lambda artifact, _, __: [tag_node(name) for name in artifact.tags],
    "historyStep": lambda artifact, _, __: artifact.history_step,
    "state": lambda artifact, _, __: artifact.state,
    "size": lambda artifact, _, __: artifact.size,
    "digest": lambda artifact, _, __: artifact.digest,
    "digestAlgorithm": lambda _, __, ___: "MANIFEST_MD5",
    "commitHash": lambda artifact, _, __: artifact.digest[:20],
    "fileCount": lambda artifact, _, __: len(artifact.entries),
    "createdAt": lambda artifact, _, __: instants.text(artifact.created_at),
    "updatedAt": lambda artifact, _, __: instants.text(artifact.updated_at),
    "aliases": lambda artifact, context, __: [
        _alias(place, alias)
        for place in context.world.artifacts.places(artifact)
        for alias in place.aliases_of(artifact)
    ],
    "artifactMemberships": lambda artifact, context, __: {
        "edges": [{"node": Membership(place, artifact)} for place in context.world.artifacts.places(artifact)]
    },
    "createdBy": _creator,
    "usedBy": _users,
    "currentManifest": lambda artifact, context, __: (
        None if artifact.manifest is None else manifest_node(context, artifact)
    ),
    "files": _files,
    "filesByManifestEntries": _files_of_entries,
}
KINDS: dict[str, Callable[[Any], str]] = {
    "ArtifactCollection": lambda value: "ArtifactPortfolio" if value.portfolio else "ArtifactSequence",
    "ArtifactCreator": lambda value: "Run" if isinstance(value, Run) else "User",
}
RESOLVERS: dict[str, dict[str, Resolver]] = {
    "ArtifactSequence": SEQUENCE,
    "ArtifactPortfolio": COLLECTION,
    "ArtifactType": KIND,
    "ArtifactCollectionMembership": MEMBERSHIP,
    "Artifact": ARTIFACT,
}
