"""The state that the resolvers of one server share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from mirror.sandbox.errors import Refused
from mirror.sandbox.listing import Listing
from mirror.sandbox.run import Project, Run
from mirror.sandbox.signing import Signer
from mirror.sandbox.world import World


class Context(Struct):
    """The world, and the addresses and settings of the server."""

    world: World
    listing: Listing
    signer: Signer
    features: Mapping[str, bool]
    url: str = ""
    storage_url: str = ""
    console_bytes: int = 1_000_000
    """The most bytes of a run's console in one answer."""

    def signed(self, verb: str, path: str) -> str:
        """Return an absolute address that works without a key until it expires."""
        return self.storage_url + self.signer.sign(verb, path)

    def file_url(self, run: Run, name: str) -> str:
        """Return the address of a file, which needs the key."""
        return f"{self.url}/files/{quote(run.path)}/{quote(name)}"

    def needed_run(self, storage_id: str) -> Run:
        """Return the run with this storage id. Raises Refused if there is none."""
        run = self.world.by_storage_id(storage_id)
        if run is None:
            raise Refused(f"run not found: {storage_id}", 404)
        return run

    def run_at(self, arguments: Mapping[str, Any]) -> Run:
        """Return the run of `entityName`, `projectName` and `runName`. Raises Refused if there is none."""
        entity, project, run_id = (arguments.get(key) for key in ("entityName", "projectName", "runName"))
        run = self.world.find(entity, project, run_id or "")
        if run is None:
            raise Refused(f"run {entity}/{project}/{run_id} not found", 404)
        return run

    def project(self, arguments: Mapping[str, Any]) -> Project | None:
        """Return the project of `entityName` and `name`, or None."""
        return self.world.find_project(arguments.get("entityName"), arguments.get("name"))
