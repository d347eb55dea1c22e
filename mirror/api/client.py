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

    def runs(self, path: str, filters: dict[str, Any] | None = None, order: str = "-created_at") -> Any:
        """Return the `Runs` of a project that match a filter."""

    def sweep(self, path: str) -> Any:
        """Return a `Sweep`. Raises NotMirrored."""

    def sweep_of(self, entity: str, project: str, name: str) -> Any:
        """Return the `Sweep` of a run, without looking it up."""

    def created(self, make: Callable[[Any, Any], Any]) -> Any:
        """Return the `Run` that `make` creates; it gets the official client's `Api` object and `Run` class."""

    def create_user(self, email: str, admin: bool | None = False) -> Any:
        """Create a user on the server with the official client."""
