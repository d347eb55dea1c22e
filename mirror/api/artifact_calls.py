"""The calls of `Api` about artifacts: answered from the mirror where it holds them, else by the official client."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from mirror.api.artifact_lists import (
    COLLECTION_ORDERS,
    VERSION_ORDERS,
    ArtifactCollection,
    ArtifactCollections,
    Artifacts,
    ArtifactType,
    ArtifactTypes,
)
from mirror.api.artifacts import Artifact
from mirror.api.client import Client
from mirror.api.official import official_method
from mirror.api.session import Session
from mirror.api.view import View
from mirror.errors import ArgumentError, NotMirrored, StoreError
from mirror.snapshot import artifact_versions
from mirror.snapshot.artifact_versions import COMMITTED, Collection
from mirror.snapshot.paths import Project

_REGISTRY = "wandb-registry-"
"""Projects of this name belong to an organization, which only the server resolves."""

_artifact = official_method("artifact")
_artifact_exists = official_method("artifact_exists")
_artifacts = official_method("artifacts")
_artifact_collection = official_method("artifact_collection")
_artifact_collection_exists = official_method("artifact_collection_exists")
_artifact_collections = official_method("artifact_collections")
_artifact_type = official_method("artifact_type")
_artifact_types = official_method("artifact_types")


class ArtifactCalls:
    """A part of `Api`."""

    session: Session
    settings: dict[str, str | None]
    _view: View
    _resolve: Callable[[Callable[[str | None], Project]], Project]

    def artifact(self, name: str, type: str | None = None, *, deleted: bool = False) -> Any:  # noqa: A002
        """Return a version, by "entity/project/name:v3" or ":alias"; without an alias, the latest.

        Entity and project may be omitted if they are set. A version that was deleted on the server is only found with
        `deleted=True`. Raises ArgumentError if it has another type than `type`, and CommError.
        """
        found = self._mirrored_version(name, deleted=deleted)
        if found is None:
            return _artifact(self, name, type)
        if type is not None and found.type != type:
            raise ArgumentError(f"type {type!r} specified but this artifact is of type {found.type!r}")
        return found

    def artifact_exists(self, name: str, type: str | None = None) -> bool:  # noqa: A002
        """Return True if a version exists, and is of this type; the server is asked about what is not mirrored."""
        found = self._mirrored_version(name)
        return bool(_artifact_exists(self, name, type)) if found is None else type in (None, found.type)

    def artifacts(
        self,
        type_name: str,
        name: str,
        order: str | None = None,
        per_page: int = 50,
        tags: list[str] | None = None,
        start: str | None = None,
    ) -> Any:
        """Return the versions of a collection, the newest first, or only those with all of these tags.

        A page of the server starts at `start`; orders other than by `versionIndex` or `createdAt` go to the server.
        """
        found = self._mirrored_collection(name, type_name)
        known = order is None or order.lstrip("+-") in VERSION_ORDERS
        if found is None or not known or start is not None:
            return _artifacts(self, type_name, name, order, per_page, tags, start)
        versions = [
            one
            for one in artifact_versions.versions(self._view.snapshot.cursor, found.key, found.name)
            if one.state == COMMITTED
        ]
        if tags:
            if not all("tags" in one.facts for one in versions):
                return _artifacts(self, type_name, name, order, per_page, tags, start)
            wanted = set([tags] if isinstance(tags, str) else tags)
            versions = [one for one in versions if wanted <= {tag["name"] for tag in one.facts["tags"]}]
        if order:
            versions.sort(key=VERSION_ORDERS[order.lstrip("+-")], reverse=order.startswith("-"))
        return Artifacts(self._client, self._view.snapshot, versions, found)

    def artifact_versions(self, type_name: str, name: str, per_page: int = 50) -> Any:
        """Return the versions of a collection: an older name of `artifacts`."""
        return self.artifacts(type_name, name, per_page=per_page)

    def artifact_collection(self, type_name: str, name: str) -> Any:
        """Return a collection, by its type and "entity/project/name". Raises CommError."""
        found = self._mirrored_collection(name, type_name)
        if found is None:
            return _artifact_collection(self, type_name, name)
        return ArtifactCollection(self._client, self._view.snapshot, found)

    def artifact_collection_exists(self, name: str, type: str) -> bool:  # noqa: A002
        """Return True if there is a collection of this name and type; the server is asked about others."""
        found = self._mirrored_collection(name, type)
        return found is not None or bool(_artifact_collection_exists(self, name, type))

    def artifact_collections(
        self,
        project_name: str,
        type_name: str,
        order: str | None = None,
        per_page: int = 50,
        start: str | None = None,
    ) -> Any:
        """Return the collections of a type, the newest first. A page of the server starts at `start`."""
        found = self.mirrored_collections(project_name, type_name, order) if start is None else None
        if found is None:
            return _artifact_collections(self, project_name, type_name, order, per_page, start)
        return found

    def mirrored_collections(
        self, project: str, type_name: str | None, order: str | None = None
    ) -> ArtifactCollections | None:
        """Return the mirrored collections, all or of a type; None if the list or the order is not mirrored."""
        key = self._listed(project)
        if key is None or (order is not None and order.lstrip("+-") not in COLLECTION_ORDERS):
            return None
        return ArtifactCollections(self._client, self._view.snapshot, key, type_name, order)

    def artifact_type(self, type_name: str, project: str | None = None) -> Any:
        """Return a type of the artifacts of a project. Raises CommError."""
        key = self._listed(project)
        if key is None or not artifact_versions.collections(self._view.snapshot.cursor, key, type_name):
            return _artifact_type(self, type_name, project)
        return ArtifactType(self._client, self._view.snapshot, key, type_name)

    def artifact_types(self, project: str | None = None, start: str | None = None) -> Any:
        """Return the types of the artifacts of a project. A page of the server starts at `start`."""
        key = self._listed(project) if start is None else None
        return (
            _artifact_types(self, project, start)
            if key is None
            else ArtifactTypes(self._client, self._view.snapshot, key)
        )

    @property
    def _client(self) -> Client:
        return cast("Client", self)

    def _mirrored_version(self, name: str, *, deleted: bool = False) -> Artifact | None:
        key, rest = self._place(name)
        if key is None:
            return None
        snapshot = self._view.snapshot
        found = artifact_versions.version(snapshot.cursor, key, rest, deleted=deleted)
        if found is None:
            return None
        return Artifact(self._client, snapshot, found, rest if ":" in rest else found.name)

    def _mirrored_collection(self, name: str, type_name: str) -> Collection | None:
        key, rest = self._place(name)
        if key is None or not artifact_versions.listed(self._view.snapshot.cursor, key):
            return None
        found = artifact_versions.collection(self._view.snapshot.cursor, key, rest.partition(":")[0])
        return found if found is not None and found.type == type_name else None

    def _listed(self, project: str | None) -> Project | None:
        """Return a project whose artifacts are mirrored; None for any other."""
        key = self._project(project or self.settings["project"] or "uncategorized")
        return key if key is not None and artifact_versions.listed(self._view.snapshot.cursor, key) else None

    def _place(self, name: str) -> tuple[Project | None, str]:
        """Return the mirrored project of a path, or None, and the rest of the path: `name:alias`."""
        if not isinstance(name, str):
            raise ArgumentError("You must specify name= to fetch an artifact.")
        # An alias may contain slashes.
        path, colon, alias = name.partition(":")
        home, _, collection = path.strip("/ ").rpartition("/")
        return self._project(home or self.settings["project"] or "uncategorized"), f"{collection}{colon}{alias}"

    def _project(self, text: str) -> Project | None:
        if text.count("/") > 1 or text.rpartition("/")[2].startswith(_REGISTRY):
            return None
        # Without a published file, and without the project in it, the official client is asked.
        with suppress(NotMirrored, StoreError):
            self._view.pull_if_old(text)
            key = self._resolve(lambda entity: self._view.snapshot.project(text, entity))
            self._view.use(key)
            return key
        return None
