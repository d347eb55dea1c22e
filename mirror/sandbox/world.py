"""The model behind the server: entities, projects and runs in memory, shared by threads under one lock."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from mirror.sandbox import instants, jsontext
from mirror.sandbox.artifacts import Artifact, Artifacts, Reference, metadata_text
from mirror.sandbox.clock import Clock
from mirror.sandbox.report import REPORT, Report
from mirror.sandbox.run import TELEMETRY, Labels, Project, Run, wrapped
from mirror.sandbox.sweep import Agent, Sweep, search


class World(Clock):
    """The server's data, and its clock: `now` may be replaced, `lock` held to make several changes at once."""

    def __init__(self, username: str = "ada", entity: str | None = None) -> None:
        super().__init__()
        self.tells_date = True
        """Whether answers have a `Date`; some proxies remove it."""
        self.username = username
        self._entity = entity
        self.projects: dict[tuple[str, str], Project] = {}
        self.artifacts = Artifacts(self)
        self.agents: dict[str, Agent] = {}
        """The agents of all sweeps, by their storage id."""
        self._by_storage_id: dict[str, Run] = {}
        self._reports = 0

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

    def add_artifact(
        self,
        entity: str,
        project: str,
        kind: str,
        name: str,
        files: Mapping[str, bytes | str] | None = None,
        *,
        aliases: Sequence[str] = (),
        references: Mapping[str, Reference] | None = None,
        metadata: Mapping[str, Any] | None = None,
        description: str | None = None,
        by: Run | None = None,
        ttl_seconds: int | None = None,
        tags: Sequence[str] = (),
        layout: str = "V2",
    ) -> Artifact:
        """Add a committed version, v0 for a new collection, and move `aliases` and `latest` to it.

        `references` has an address for a path, or an address and a size. `layout` is that of the stored content.
        """
        with self.lock:
            self.add_project(entity, project)
            collection = self.artifacts.place(entity, project, kind, name)
            artifact = self.artifacts.add(
                collection,
                files or {},
                references or {},
                layout,
                asked_aliases=tuple(aliases),
                metadata=metadata_text(metadata),
                description=description,
                run_id=None if by is None else by.storage_id,
                ttl_seconds=ttl_seconds,
                tags=list(tags),
            )
            self.commit_artifact(artifact)
            return artifact

    def commit_artifact(self, artifact: Artifact) -> None:
        """Make a version final: it gets its number and aliases, and its run the output."""
        with self.lock:
            self.artifacts.commit(artifact)
            run = self.by_storage_id(artifact.run_id or "")
            if run is not None:
                run.log_artifact(artifact)

    def link_artifact(
        self, artifact: Artifact, entity: str, project: str, name: str, aliases: Sequence[str] = ()
    ) -> int:
        """Link a version to a portfolio, created if it does not exist, and return its number there."""
        with self.lock:
            self.add_project(entity, project)
            portfolio = self.artifacts.place(entity, project, artifact.collection.kind, name, portfolio=True)
            return self.artifacts.link(artifact, portfolio, aliases)

    def artifact(self, entity: str, project: str, name: str) -> Artifact:
        """Return the version `collection:v3` or `collection:alias`. Raises KeyError if it does not exist."""
        collection, _, alias = name.partition(":")
        known = self.artifacts.of_project(entity, project)
        found = known[collection].find(alias or "latest") if collection in known else None
        if found is None:
            raise KeyError(f"{entity}/{project}/{name}")
        return found

    def delete_artifact(self, artifact: Artifact) -> None:
        """Delete a version."""
        with self.lock:
            self.artifacts.delete(artifact)

    def add_sweep(
        self,
        entity: str,
        project: str,
        config: str | Mapping[str, Any],
        *,
        sweep_id: str | None = None,
        state: str = "RUNNING",
        display_name: str | None = None,
        description: str | None = None,
        created_at: datetime | None = None,
        prior_runs: Sequence[str] = (),
    ) -> Sweep:
        """Create a sweep, or replace the one with this id. `config` is YAML, or becomes YAML.

        Runs belong to it by `add_run(sweep=...)`. Refuses a config without a known method.
        """
        import yaml

        with self.lock:
            when = self.moment() if created_at is None else instants.naive(created_at)
            home = self.add_project(entity, project, created_at=when)
            text = config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)
            method, expected = search(text)
            name = sweep_id or new_run_id()
            sweep = home.sweeps[name] = Sweep(
                *(name, entity, project, when, text, method, state, display_name, description, expected),
                prior_runs=tuple(prior_runs),
                updated_at=when,
            )
            self.changed()
            return sweep

    def change_sweep(self, sweep: Sweep, **changes: Any) -> Sweep:
        """Replace fields of a sweep, such as its state, and return it; its `updated_at` is now."""
        with self.lock:
            home = self.add_project(sweep.entity, sweep.project)
            changed = home.sweeps[sweep.name] = replace(sweep, **{"updated_at": self.moment(), **changes})
            self.changed()
            return changed

    def add_report(
        self,
        entity: str,
        project: str,
        title: str,
        spec: str | Mapping[str, Any],
        *,
        description: str = "",
        user: str | None = None,
        created_at: datetime | None = None,
        kind: str = REPORT,
        name: str | None = None,
    ) -> Report:
        """Create a report, or another saved view by `kind`. `spec` is JSON text, or becomes that."""
        with self.lock:
            when = self.moment() if created_at is None else instants.naive(created_at)
            home = self.add_project(entity, project, created_at=when)
            self._reports += 1
            text = spec if isinstance(spec, str) else jsontext.write(dict(spec))
            report = Report(
                *(597_920 + self._reports, name or new_run_id(), entity, project, title, text),
                *(user or self.username, when, when, description, kind),
            )
            home.reports[report.storage_id] = report
            self.changed()
            return report

    def change_report(self, report: Report, **changes: Any) -> Report:
        """Replace fields of a report, such as its spec, and return it; its `updated_at` is now."""
        with self.lock:
            home = self.add_project(report.entity, report.project)
            if not isinstance(changes.get("spec", ""), str):
                changes["spec"] = jsontext.write(changes["spec"])
            changed = replace(report, **{"updated_at": self.moment(), **changes})
            home.reports[report.storage_id] = changed
            self.changed()
            return changed

    def find_report(self, storage_id: str) -> Report | None:
        """Return the report or saved view with this storage id, or None."""
        # Addresses of pages leave out the padding.
        wanted = storage_id.rstrip("=")
        found = (report for project in self.projects.values() for report in project.reports.values())
        return next((report for report in found if report.storage_id.rstrip("=") == wanted), None)

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
