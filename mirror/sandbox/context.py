"""What the resolvers of one server share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mirror.sandbox.errors import Refused
from mirror.sandbox.listing import Listing
from mirror.sandbox.run import Run
from mirror.sandbox.signing import Signer
from mirror.sandbox.world import Project, World


@dataclass
class Context:
    """The world, this server's addresses, and what it gives out."""

    world: World
    listing: Listing
    signer: Signer
    features: Mapping[str, bool]
    url: str = ""
    storage_url: str = ""
    console_bytes: int = 1_000_000
    """How much console one answer holds of a run."""

    def signed(self, verb: str, path: str) -> str:
        """An absolute address that works without a key until it expires."""
        return self.storage_url + self.signer.sign(verb, path)

    def file_url(self, run: Run, name: str) -> str:
        """The address of a file that wants the key."""
        return f"{self.url}/files/{quote(run.path)}/{quote(name)}"

    def needed_run(self, storage_id: str) -> Run:
        """The run that a mutation names. Refuses when there is none."""
        run = self.world.by_storage_id(storage_id)
        if run is None:
            raise Refused(f"run not found: {storage_id}", 404)
        return run

    def run_at(self, arguments: Mapping[str, Any]) -> Run:
        """The run that `entityName`, `projectName` and `runName` name. Refuses when there is none."""
        entity, project, run_id = (arguments.get(key) for key in ("entityName", "projectName", "runName"))
        run = self.world.find(entity, project, run_id or "")
        if run is None:
            raise Refused(f"run {entity}/{project}/{run_id} not found", 404)
        return run

    def project(self, arguments: Mapping[str, Any]) -> Project | None:
        """The project that `entityName` and `name` name, or None."""
        return self.world.find_project(arguments.get("entityName"), arguments.get("name"))
