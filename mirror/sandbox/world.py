"""The model behind the server: entities, projects and runs in memory, shared by threads under one lock."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mirror.sandbox import instants, jsontext
from mirror.sandbox.clock import Clock
from mirror.sandbox.run import TELEMETRY, Labels, Project, Run, wrapped


class World(Clock):
    """The server's data, and its clock: `now` may be replaced, `lock` held to make several changes at once."""

    def __init__(self, username: str = "ada", entity: str | None = None) -> None:
        super().__init__()
        self.tells_date = True
        """Whether answers have a `Date`; some proxies remove it."""
        self.username = username
        self._entity = entity
        self.projects: dict[tuple[str, str], Project] = {}
        self._by_storage_id: dict[str, Run] = {}

    @property
    def entity(self) -> str:
        """The viewer's default entity: the constructor's, else that of the first project, else the user name."""
        if self._entity is not None:
            return self._entity
        return next((entity for entity, _ in self.projects), self.username)

    def entities(self) -> list[str]:
        """Return the default entity and every other entity with a project."""
        return list(dict.fromkeys([self.entity, *(entity for entity, _ in self.projects)]))

    def add_project(self, entity: str, project: str, *, created_at: datetime | None = None) -> Project:
        """Return the project, created if it does not exist."""
        with self.lock:
            found = self.projects.get((entity, project))
            if found is None:
                when = self.moment() if created_at is None else instants.naive(created_at)
                found = Project(self, entity, project, 1000 + len(self.projects), when)
                self.projects[entity, project] = found
                self.changed()
            return found

    def add_run(
        self,
        entity: str,
        project: str,
        *,
        run_id: str | None = None,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        summary: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        state: str = "running",
        created_at: datetime | None = None,
        group: str | None = None,
        job_type: str | None = None,
        sweep: str | None = None,
        notes: str | None = None,
        description: str | None = None,
        host: str | None = None,
        commit: str | None = None,
        user: str | None = None,
        wandb_config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Run:
        """Create a run. Without `config` it has no config; with one, `_wandb` telemetry is added.

        Its times are `created_at` until it changes. Raises ValueError for an id that the project has already.
        """
        with self.lock:
            when = self.moment() if created_at is None else instants.naive(created_at)
            home = self.add_project(entity, project, created_at=when)
            run_id = run_id or new_run_id()
            if run_id in home.runs:
                raise ValueError(f"{entity}/{project}/{run_id} exists already; take another run id")
            labels = Labels(
                name or run_id, group, job_type, sweep, notes, description, host, commit, user or self.username
            )
            run = Run(home, run_id, when, labels, state)
            run.tags = list(tags)
            if config is not None:
                run.set_config({**wrapped(config), "_wandb": {"value": dict(wandb_config or TELEMETRY)}})
            if summary is not None:
                run.set_summary(summary)
            facts = dict(metadata or {})
            if host is not None:
                facts.setdefault("host", host)
            if commit is not None:
                facts.setdefault("git", {"commit": commit, "remote": f"https://github.com/{entity}/{project}.git"})
            if facts:
                run.add_file("wandb-metadata.json", jsontext.write(facts))
            self._register(run)
            return run

    def _register(self, run: Run) -> None:
        run.project.runs[run.run_id] = run
        self._by_storage_id[run.storage_id] = run
        self.changed()

    def find_project(self, entity: str | None, project: str | None) -> Project | None:
        """Return the project, or None; the default is the viewer's entity."""
        return self.projects.get((entity or self.entity, project or "uncategorized"))

    def find(self, entity: str | None, project: str | None, run_id: str) -> Run | None:
        """Return the run, or None."""
        home = self.find_project(entity, project)
        return None if home is None else home.runs.get(run_id)

    def run(self, entity: str, project: str, run_id: str) -> Run:
        """Return the run. Raises KeyError if it does not exist."""
        found = self.find(entity, project, run_id)
        if found is None:
            raise KeyError(f"{entity}/{project}/{run_id}")
        return found

    def runs(self, entity: str, project: str) -> list[Run]:
        """Return the project's runs in the order of creation; empty for an unknown project."""
        home = self.find_project(entity, project)
        return [] if home is None else list(home.runs.values())

    def by_storage_id(self, storage_id: str) -> Run | None:
        """Return the run with this storage id, or None."""
        return self._by_storage_id.get(storage_id)

    def delete_run(self, entity: str, project: str, run_id: str) -> None:
        """Remove a run. Raises KeyError if it does not exist."""
        with self.lock:
            run = self.run(entity, project, run_id)
            del run.project.runs[run_id]
            del self._by_storage_id[run.storage_id]
            self.changed()


def new_run_id() -> str:
    """Return eight random characters, as the client does."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
