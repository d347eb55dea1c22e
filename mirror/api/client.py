"""What the objects of the Python API need of the `Api` that they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mirror.api.session import Session

if TYPE_CHECKING:
    from mirror.snapshot.snapshot import Snapshot


class Client(Protocol):
    """The part of `Api` that runs, projects, sweeps and users call.

    Methods that return objects above the caller return Any; the caller's own annotation names the class.
    """

    session: Session
    allow_delete: bool

    def newest(self) -> Snapshot:
        """Move to the newest snapshot and return it."""

    def facts_of(self, entity: str, project: str) -> Mapping[str, Any]:
        """Return what the server reported about a mirrored project, by the field names of its API."""

    def sweep_facts(self, entity: str, project: str, name: str) -> Mapping[str, Any] | None:
        """Return what the server reported about a sweep, by the field names of its API; None if it is not mirrored."""

    def all_sweep_facts(self, entity: str, project: str) -> list[dict[str, Any]] | None:
        """Return the same of all sweeps of a project; None if they are not mirrored."""

    def runs(
        self, path: str, filters: dict[str, Any] | None = None, order: str = "-created_at", per_page: int = 50
    ) -> Any:
        """Return the `Runs` of a project that match a filter."""

    def sweep(self, path: str) -> Any:
        """Return a `Sweep`. Raises NotMirrored."""

    def sweep_of(self, entity: str, project: str, name: str) -> Any:
        """Return the `Sweep` of a run, without looking it up."""

    def run_or(self, path: str, otherwise: Callable[[], Any]) -> Any:
        """Return the mirrored `Run` with this complete path, else the result of `otherwise`."""

    def artifact_collection(self, type_name: str, name: str) -> Any:
        """Return an `ArtifactCollection`, by the type and "entity/project/name"."""

    def artifact_types(self, project: str | None = None) -> Any:
        """Return the `ArtifactTypes` of a project."""

    def mirrored_collections(self, project: str, type_name: str | None, order: str | None) -> Any:
        """Return the mirrored `ArtifactCollections`, all or of a type; None if the mirror cannot answer."""

    def created(self, make: Callable[[Any, Any], Any]) -> Any:
        """Return the `Run` that `make` creates; it gets the official client's `Api` object and `Run` class."""

    def create_user(self, email: str, admin: bool | None = False) -> Any:
        """Create a user on the server with the official client."""
