"""What the mirror holds of a version of an artifact: which one it is, its facts, and where it comes from."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mirror.api.client import Client
from mirror.api.official import call_server
from mirror.snapshot import artifact_versions
from mirror.snapshot.artifact_versions import Version

if TYPE_CHECKING:
    from mirror.snapshot.snapshot import Snapshot


class ArtifactFacts:
    """A version in one snapshot."""

    distributed_id = None
    incremental = False
    use_as = None

    def __init__(self, api: Client, snapshot: Snapshot, version: Version, name: str | None = None) -> None:
        """Use `Api.artifact` to get one; `name` is how it was asked for, such as `model:best`."""
        self._api = api
        self._snapshot = snapshot
        self._held = version
        self._name = name or version.name

    # Which version it is

    @property
    def id(self) -> str:
        """The server's own id."""
        return self._held.artifact_id

    @property
    def entity(self) -> str:
        """The user or team that owns the project."""
        return self._held.key.entity

    @property
    def project(self) -> str:
        """The name of the project."""
        return self._held.key.project

    @property
    def name(self) -> str:
        """The collection with the alias or version by which it was found, such as `model:best`."""
        return self._name

    @property
    def qualified_name(self) -> str:
        """Entity, project and name."""
        return f"{self.entity}/{self.project}/{self.name}"

    @property
    def version(self) -> str:
        """The version, such as `v3`."""
        return f"v{self._held.number}"

    @property
    def type(self) -> str:
        """The type, such as `dataset` or `model`."""
        return self._held.type

    @property
    def url(self) -> str:
        """Its page on the server; of a link to a model, that of the model registry."""
        page = self._api.session.page(self.entity, self.project)
        if (self.type == "model" or self.project == "model-registry") and self.is_link:
            path = quote(f"{self.entity}/{self.project}/{self._held.collection}", safe="")
            shown = f"selectionPath={path}&view=membership&version={self.version}"
            return f"{page.rpartition('/')[0]}/registry/model?{shown}"
        return f"{page}/artifacts/{quote(self.type)}/{quote(self._held.collection)}/{self.version}"

    @property
    def is_link(self) -> bool:
        """Whether it is a link to a version of another collection."""
        found = artifact_versions.collection(self._snapshot.cursor, self._held.key, self._held.collection)
        return found is not None and found.is_link

    # Facts

    @property
    def state(self) -> str:
        """Its state on the server, such as COMMITTED."""
        return self._held.state

    @property
    def digest(self) -> str | None:
        """The digest of its manifest."""
        return self._held.digest

    @property
    def digest_algorithm(self) -> Any:
        """How the digest is computed, such as MANIFEST_MD5."""
        return self._fact("digestAlgorithm", "digest_algorithm")

    @property
    def size(self) -> int:
        """The bytes of all files and references."""
        return self._held.size or 0

    @property
    def file_count(self) -> int:
        """The number of files and references."""
        return self._held.file_count or 0

    @property
    def created_at(self) -> str | None:
        """When it was created: ISO 8601, UTC."""
        return self._time("createdAt", self._held.created_at)

    @property
    def updated_at(self) -> str | None:
        """When it was last changed: ISO 8601, UTC."""
        return self._time("updatedAt", self._held.updated_at) or self.created_at

    @property
    def commit_hash(self) -> str | None:
        """The hash that the server returned when it was committed."""
        found: str | None = self._fact("commitHash", "commit_hash")
        return found

    @property
    def history_step(self) -> int | None:
        """The last step that its run had logged before it; None if it is not known."""
        step = self._fact("historyStep", "history_step")
        if "historyStep" not in self._held.facts or step is None:
            return None if step is None else int(step)
        return max(0, int(step) - 1)

    @property
    def deleted(self) -> bool:
        """Whether it was deleted on the server; the mirror keeps such versions."""
        return self._held.deleted

    # Where it comes from

    def logged_by(self) -> Any:
        """Return the run that logged it: a mirrored one, else the official client's; None if there is none."""
        if self._held.run is None:
            return None
        path = "/".join(self._held.run)
        return self._api.run_or(path, lambda: call_server(self._official.logged_by))

    def used_by(self) -> list[Any]:
        """Return the runs that used it: the mirrored ones, and those that only the server knows if it is reachable."""
        found = artifact_versions.users(self._snapshot.cursor, self.id)
        return [self._api.run_or("/".join(path), lambda: None) for path in found]

    @property
    def collection(self) -> Any:
        """The collection that it is in."""
        return self._api.artifact_collection(self.type, f"{self.entity}/{self.project}/{self._held.collection}")

    @property
    def source_artifact(self) -> Any:
        """The version that was logged; itself, unless it is a link."""
        if not self.is_link:
            return self
        source = artifact_versions.by_id(self._snapshot.cursor, self.id)
        if source is None:
            return call_server(lambda: self._official.source_artifact)
        return type(self)(self._api, self._snapshot, source)

    @property
    def source_entity(self) -> str:
        """The entity of the version that was logged."""
        return str(self.source_artifact.entity)

    @property
    def source_project(self) -> str:
        """The project of the version that was logged."""
        return str(self.source_artifact.project)

    @property
    def source_version(self) -> str:
        """The version that was logged, such as `v3`."""
        return str(self.source_artifact.version)

    @property
    def source_name(self) -> str:
        """The collection and version that was logged, such as `model:v3`."""
        source = self.source_artifact
        return f"{source.name.split(':')[0]}:{source.version}"

    @property
    def source_qualified_name(self) -> str:
        """Entity, project and name of the version that was logged."""
        return f"{self.source_entity}/{self.source_project}/{self.source_name}"

    @property
    def source_collection(self) -> Any:
        """The collection that it was logged to."""
        return self.source_artifact.collection

    @property
    def linked_artifacts(self) -> list[Any]:
        """Its links in other collections, which the official client asks the server for."""
        found: list[Any] = call_server(lambda: self._official.linked_artifacts)
        return found

    @property
    def linked_at(self) -> str | None:
        """When it was linked to this collection; None unless it is a link."""
        found: str | None = call_server(lambda: self._official.linked_at) if self.is_link else None
        return found

    @property
    def _official(self) -> Any:
        path = f"{self.entity}/{self.project}/{self._held.name}"
        return call_server(lambda: self._api.session.official.artifact(path))

    def _fact(self, field: str, attribute: str) -> Any:
        """Return a field as the server returned it; if it is not mirrored, ask the server."""
        if field in self._held.facts:
            return self._held.facts[field]
        return call_server(lambda: getattr(self._official, attribute))

    def _time(self, field: str, stored: datetime | None) -> str | None:
        reported: str | None = self._held.facts.get(field)
        return reported or (None if stored is None else f"{stored.isoformat()}Z")

    def __repr__(self) -> str:
        return f"<Artifact {self.qualified_name}>"
