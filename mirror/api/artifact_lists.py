"""Lists of mirrored artifacts: versions, collections and types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mirror.api.artifacts import Artifact
from mirror.api.client import Client
from mirror.api.editable import changed, editable
from mirror.api.lists import WholeList
from mirror.api.official import call_server, official_method
from mirror.snapshot import artifact_versions
from mirror.snapshot.artifact_versions import Collection, Version
from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from mirror.snapshot.snapshot import Snapshot

__all__ = ["ArtifactCollection", "ArtifactCollections", "ArtifactType", "ArtifactTypes", "Artifacts", "RunArtifacts"]


class _Versions(WholeList[Artifact]):
    _found: list[Artifact]

    def _all(self) -> list[Artifact]:
        return self._found

    @property
    def length(self) -> int:
        """The number of versions."""
        return len(self)


class Artifacts(_Versions):
    """Versions of a collection."""

    def __init__(self, api: Client, snapshot: Snapshot, found: Sequence[Version], collection: Collection) -> None:
        self.entity, self.project = collection.key
        self.collection_name, self.type = collection.name, collection.type
        self._found = [Artifact(api, snapshot, one) for one in found]

    def __repr__(self) -> str:
        return f"<Artifacts {self.entity}/{self.project}/{self.collection_name} ({len(self)})>"


class RunArtifacts(_Versions):
    """What a run logged or used."""

    def __init__(self, api: Client, snapshot: Snapshot, run: Any, found: Sequence[Version]) -> None:
        self.run = run
        self._found = [Artifact(api, snapshot, one) for one in found]

    def __repr__(self) -> str:
        return f"<RunArtifacts {'/'.join(self.run.path)} ({len(self)})>"


class ArtifactCollection:
    """A mirrored collection, with the interface of the official client's.

    `save` sends changes of `name`, `type`, `description` and `tags` to the server, then pulls them into the mirror.
    """

    def __init__(self, api: Client, snapshot: Snapshot, collection: Collection) -> None:
        """Use `Api.artifact_collection` to get one."""
        self._api = api
        self._snapshot = snapshot
        self._held = collection
        self._current = self._as_mirrored()

    name = editable("name", "The name.")
    type = editable("type", "The type of its versions.")
    description = editable("description", "The description.")
    tags = editable("tags", "The tags; the server is asked if they are not mirrored.")

    @property
    def id(self) -> str:
        """The server's own id."""
        return self._held.collection_id

    @property
    def entity(self) -> str:
        """The user or team that owns the project."""
        return self._held.key.entity

    @property
    def project(self) -> str:
        """The name of the project."""
        return self._held.key.project

    @property
    def project_id(self) -> str:
        """The server's own id of the project."""
        return str(self._of_project("id", "project_id"))

    @property
    def project_internal_id(self) -> str | None:
        """The server's internal id of the project."""
        found: str | None = self._of_project("internalId", "project_internal_id")
        return found

    @property
    def aliases(self) -> list[str]:
        """The aliases of all its versions."""
        return list(dict.fromkeys(alias for version in self._versions() for alias in version.aliases))

    @property
    def created_at(self) -> str | None:
        """When it was created: ISO 8601, UTC."""
        reported: str | None = self._held.facts.get("createdAt")
        stored = self._held.created_at
        return reported or (None if stored is None else f"{stored.isoformat()}Z")

    @property
    def updated_at(self) -> str | None:
        """When it was last changed: ISO 8601, UTC; the server is asked if it is not mirrored."""
        found: str | None
        if "updatedAt" in self._held.facts:
            found = self._held.facts["updatedAt"]
        else:
            found = call_server(lambda: self._official.updated_at)
        return found

    def is_sequence(self) -> bool:
        """Return True if its versions were logged to it, and are not links."""
        return not self._held.is_link

    def artifacts(self, per_page: int = 50, start: str | None = None) -> Any:
        """Return its versions, the newest first. A page of the server starts at `start`."""
        if start is not None:
            return call_server(lambda: self._official.artifacts(per_page, start))
        return Artifacts(self._api, self._snapshot, self._versions(), self._held)

    def save(self) -> None:
        """Send what was changed to the server, then pull it into the mirror. Raises CommError and MissingPackage."""
        sent = changed(self, self._as_mirrored())
        if not sent:
            return
        name = self._current["name"]
        self._api.session.pull_written([str(self._held.key)])
        self._snapshot = self._api.newest()
        self._held = artifact_versions.collection(self._snapshot.cursor, self._held.key, name) or self._held
        self._current = self._as_mirrored() | sent

    change_type = official_method("change_type")
    delete = official_method("delete")
    load = official_method("load")

    def _versions(self) -> list[Version]:
        return artifact_versions.versions(self._snapshot.cursor, self._held.key, self._held.name)

    def _as_mirrored(self) -> dict[str, Any]:
        """Return the values of what can be edited, as mirrored; without `tags` if the mirror does not hold them."""
        values: dict[str, Any] = {name: getattr(self._held, name) for name in ("name", "type", "description")}
        if "tags" in self._held.facts:
            values["tags"] = [edge["node"]["name"] for edge in self._held.facts["tags"]["edges"]]
        return values

    def _of_project(self, field: str, attribute: str) -> Any:
        facts = self._api.facts_of(*self._held.key)
        return facts[field] if field in facts else call_server(lambda: getattr(self._official, attribute))

    @property
    def _official(self) -> Any:
        path = f"{self._held.key}/{self._held.name}"
        return call_server(lambda: self._api.session.official.artifact_collection(self._held.type, path))

    def __repr__(self) -> str:
        return f"<ArtifactCollection {self.name} ({self.type})>"


class ArtifactCollections(WholeList[ArtifactCollection]):
    """Collections of a project, all or those of a type."""

    def __init__(self, api: Client, snapshot: Snapshot, key: Project, type_name: str | None, order: str | None) -> None:
        self.entity, self.project = key
        self.type_name = type_name
        found = artifact_versions.collections(snapshot.cursor, key, type_name)
        if order:
            found.sort(key=COLLECTION_ORDERS[order.lstrip("+-")], reverse=order.startswith("-"))
        self._found = [ArtifactCollection(api, snapshot, one) for one in found]

    def _all(self) -> list[ArtifactCollection]:
        return self._found

    @property
    def length(self) -> int:
        """The number of collections."""
        return len(self)

    def __repr__(self) -> str:
        return f"<ArtifactCollections {self.entity}/{self.project} ({len(self)})>"


COLLECTION_ORDERS: dict[str, Any] = {
    "name": lambda one: one.name,
    **dict.fromkeys(("createdAt", "created_at"), lambda one: str(one.created_at)),
}
VERSION_ORDERS: dict[str, Any] = {
    **dict.fromkeys(("versionIndex", "version"), lambda one: one.number),
    **dict.fromkeys(("createdAt", "created_at"), lambda one: (str(one.created_at), one.number)),
}
"""The orders that the mirror knows; others are asked of the server."""


class ArtifactType:
    """A type of the artifacts of a project."""

    def __init__(self, api: Client, snapshot: Snapshot, key: Project, name: str) -> None:
        """Use `Api.artifact_type` to get one."""
        self._api = api
        self._snapshot = snapshot
        self._key = key
        self.entity, self.project = key
        self.type = name

    @property
    def name(self) -> str:
        """The name, such as `dataset`."""
        return self.type

    @property
    def id(self) -> str:
        """The server's own id, which the official client asks for."""
        return str(call_server(lambda: self._official.id))

    def collections(
        self, filters: Any = None, order: str | None = None, per_page: int = 50, start: str | None = None
    ) -> Any:
        """Return its collections, the newest first; filters and other orders than by name or time go to the server."""
        if filters or start is not None or (order and order.lstrip("+-") not in COLLECTION_ORDERS):
            return call_server(lambda: self._official.collections(filters, order, per_page, start))
        return ArtifactCollections(self._api, self._snapshot, self._key, self.type, order)

    def collection(self, name: str) -> Any:
        """Return one of its collections."""
        return self._api.artifact_collection(self.type, f"{self._key}/{name}")

    load = official_method("load")

    @property
    def _official(self) -> Any:
        return call_server(lambda: self._api.session.official.artifact_type(self.type, str(self._key)))

    def __repr__(self) -> str:
        return f"<ArtifactType {self.type}>"


class ArtifactTypes(WholeList[ArtifactType]):
    """The types of the mirrored artifacts of a project, by name."""

    def __init__(self, api: Client, snapshot: Snapshot, key: Project) -> None:
        self.entity, self.project = key
        names = {one.type for one in artifact_versions.collections(snapshot.cursor, key)}
        self._found = [ArtifactType(api, snapshot, key, name) for name in sorted(names)]

    def _all(self) -> list[ArtifactType]:
        return self._found

    def __repr__(self) -> str:
        return f"<ArtifactTypes {self.entity}/{self.project}>"
