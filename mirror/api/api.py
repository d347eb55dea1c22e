"""The entry to the Python API."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from mirror.addresses import path_of
from mirror.api.artifact_calls import ArtifactCalls
from mirror.api.official import call_server, official_method
from mirror.api.peer_session import PeerSession
from mirror.api.people import User
from mirror.api.projects import Project, Projects
from mirror.api.reports import Report, Reports
from mirror.api.run import Run
from mirror.api.runs import Runs
from mirror.api.session import Session
from mirror.api.sweeps import Sweep
from mirror.api.view import View, span
from mirror.errors import ArgumentError, CommError, NotMirrored, StoreError
from mirror.peer import Peer
from mirror.settings.home import Home
from mirror.snapshot.paths import Ambiguous
from mirror.snapshot.paths import Project as MirroredProject
from mirror.snapshot.runs import RunPage
from mirror.snapshot.snapshot import Snapshot
from mirror.version import VERSION

__all__ = ["Api"]

_OVERRIDES = {
    "entity": "WANDB_ENTITY",
    "project": "WANDB_PROJECT",
    "base_url": "WANDB_BASE_URL",
    "organization": "WANDB_ORGANIZATION",
}

Found = TypeVar("Found")


class Api(ArtifactCalls):
    """Reads runs from the mirror, and writes them to the server and the mirror; has the official `Api`'s interface.

    Shows one consistent snapshot of the mirror, until `refresh`, `flush` or one of its own writes moves to a newer one.

    `overrides` may set `entity`, `project`, `base_url` and `organization`; `timeout` (seconds) and `api_key` are for
    the server. `home` selects another mirror than MIRROR_HOME. `max_age` ("5m", or seconds): a project whose last sync
    is older is pulled when it is first used. `allow_delete` enables `Run.delete`.

    `url` reads a mirror on another machine, with a `token` of it, else that of MIRROR_TOKEN: everything that is
    mirrored there, and nothing else. Such an Api writes nothing, and asks no W&B server; see docs/api.md.
    """

    def __init__(
        self,
        overrides: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        api_key: str | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        max_age: str | float | None = None,
        allow_delete: bool = False,
        url: str | None = None,
        token: str | None = None,
    ) -> None:
        """Check the arguments; opens nothing yet. Raises ArgumentError for invalid ones, AuthError without a token."""
        environ = dict(os.environ)
        if unknown := [name for name in overrides or {} if name not in _OVERRIDES]:
            raise ArgumentError(f"overrides: unknown {unknown[0]!r}; known: {', '.join(_OVERRIDES)}")
        environ |= {_OVERRIDES[name]: str(value) for name, value in (overrides or {}).items() if value}
        if api_key:
            environ["WANDB_API_KEY"] = api_key
        if home is not None:
            environ["MIRROR_HOME"] = str(Path(home).expanduser().absolute())
        if url is None:
            if token is not None:
                raise ArgumentError("token= is for a mirror on another machine: give its url=, too")
            self.session = Session(Home.find(environ), environ, timeout)
        else:
            given = {"home": home, "max_age": max_age, "allow_delete": allow_delete or None, "api_key": api_key}
            self.session = PeerSession(Peer.of(url, token, environ), environ, given)
        # With a mirror elsewhere the session refuses, and says why.
        self.allow_delete = allow_delete or url is not None
        self.settings = {name: environ.get(variable) for name, variable in _OVERRIDES.items()}
        if self.settings["base_url"]:
            self.settings["base_url"] = self.settings["base_url"].rstrip("/")
        self._view = View(self.session, span(max_age))
        self._viewer: User | None = None

    # Reading

    def run(self, path: str = "", *, deleted: bool = False) -> Run:
        """Return one run, by "entity/project/run_id", "project/run_id", the address of its page, or only its id.

        In place of the id stands the display name, too, if only one run has it; an id wins over a name.
        Returns the same object each time, until the snapshot changes. Raises NotMirrored, which is a CommError. A run
        that was deleted on the server is only found with `deleted=True`.
        """
        text = self._run_path(path)
        if ("run", text) not in self._view.known:
            self._view.known.setdefault(("run", text), self._open_run(text, path.strip(), deleted=deleted))
        run: Run = self._view.known["run", text]
        return run

    def _open_run(self, text: str, given: str, *, deleted: bool) -> Run:
        parts = text.split("/")
        view = self._view
        view.pull_if_old("/".join(parts[:2]) if len(parts) == 3 else None)
        try:
            address = self._resolve(lambda entity: view.snapshot.address(text, entity, deleted=deleted))
        except NotMirrored as error:
            # A name may contain what separates or ends a path, such as a colon or a question mark.
            if text == given:
                raise
            try:
                address = self._resolve(lambda entity: view.snapshot.address(given, entity, deleted=deleted))
            except NotMirrored:
                raise error from None
        if view.pull_if_old(f"{address.entity}/{address.project}"):
            address = view.snapshot.address(str(address), None, deleted=deleted)
        view.use(address)
        snapshot = view.snapshot
        return Run(self, RunPage(snapshot, [address.rid], address.key), snapshot.named([address.rid])[0])

    def run_or(self, path: str, otherwise: Callable[[], Any]) -> Any:
        """Return the mirrored run with this complete path, else the result of `otherwise`."""
        try:
            return self.run(path)
        except NotMirrored:
            return otherwise()

    def runs(
        self,
        path: str | None = None,
        filters: dict[str, Any] | None = None,
        order: str = "-created_at",
        per_page: int = 50,
        include_sweeps: bool = False,  # noqa: ARG002
        lazy: bool = True,  # noqa: ARG002
        *,
        deleted: bool = False,
    ) -> Runs:
        """Return the runs of a project that match a Mongo-style filter, in order; see docs/filters.md.

            api.runs("team/vision", {"config.lr": {"$gt": 0.01}, "state": "finished"}, order="-summary_metrics.acc")

        Newest first by default. Deleted runs are left out unless `deleted`. Raises NotMirrored and FilterError.
        `include_sweeps` and `lazy` are only accepted for compatibility with the official client.
        """
        text = path or self.settings["project"]
        if not text:
            raise ArgumentError("which project? give a path such as team/vision, or set WANDB_PROJECT")
        key = ("runs", text, repr(filters), order, per_page, deleted)
        if key not in self._view.known:
            self._view.pull_if_old(text)
            name = self._resolve(lambda entity: self._view.snapshot.project(text, entity))
            if self._view.pull_if_old(str(name)):
                name = self._view.snapshot.project(str(name), None)
            self._view.use(name)
            self._view.known[key] = Runs(
                self, self._view.snapshot, name, filters, order or "-created_at", per_page, deleted=deleted
            )
        runs: Runs = self._view.known[key]
        return runs

    def projects(self, entity: str | None = None, per_page: int = 200) -> Projects:  # noqa: ARG002
        """Return the mirrored projects of an entity; of all entities if none is given or set."""
        owner = entity or self.settings["entity"]
        names = [name for name in self._view.snapshot.projects if owner in (None, name.entity)]
        return Projects(owner, [Project(*name, self) for name in names])

    def project(self, name: str, entity: str | None = None) -> Project:
        """Return one mirrored project. Raises NotMirrored."""
        text = f"{entity}/{name}" if entity else name
        return Project(*self._resolve(lambda owner: self._view.snapshot.project(text, owner)), self)

    def sweep(self, path: str) -> Sweep:
        """Return a sweep, by "entity/project/sweep_id"; entity and project may be omitted if they are set.

        A sweep that is not mirrored is looked up on the server. Returns the same object each time, until the snapshot
        changes. Raises NotMirrored.
        """
        text = self._run_path(path, "sweep")
        if ("sweep", text) not in self._view.known:
            self._view.known["sweep", text] = self._open_sweep(text)
        sweep: Sweep = self._view.known["sweep", text]
        return sweep

    def sweep_of(self, entity: str, project: str, name: str) -> Sweep:
        """Return the sweep of a run, without looking it up."""
        return Sweep(entity, project, name, self)

    def sweep_facts(self, entity: str, project: str, name: str) -> Mapping[str, Any] | None:
        """Return what the server reported about a sweep, by the field names of its API; None if it is not mirrored."""
        return self._view.snapshot.sweep(MirroredProject(entity, project), name)

    def all_sweep_facts(self, entity: str, project: str) -> list[dict[str, Any]] | None:
        """Return the same of all sweeps of a project; None if they are not mirrored."""
        return self._view.snapshot.sweeps(MirroredProject(entity, project))

    def reports(self, path: str = "", name: str | None = None, per_page: int = 50) -> Any:
        """Return the reports of a project, or only those with this name.

        From the mirror if `sync.reports` mirrors them, else the official client asks the server. `per_page` only
        matters for the server. Raises CommError, MissingPackage.
        """
        text = path or self.settings["project"] or ""
        with suppress(NotMirrored):
            project = self._resolve(lambda entity: self._view.snapshot.project(text, entity))
            if (found := self._view.snapshot.reports(project)) is not None:
                wanted = unquote(name) if name else None
                chosen = [Report(*project, one, self) for one in found if wanted in (None, one.get("name"))]
                return Reports(*project, chosen)
        return call_server(lambda: self._official.reports(path, name, per_page))

    def _open_sweep(self, text: str) -> Sweep:
        project_path, _, name = text.rpartition("/")
        if not project_path:
            raise ArgumentError(f"{text!r} is not a sweep path; use entity/project/sweep_id")
        project = self._resolve(lambda entity: self._view.snapshot.project(project_path, entity))
        found = self.sweep_of(*project, name)
        if not len(found.runs):
            try:
                found.load()
            except CommError as error:
                raise NotMirrored(f"no run of a sweep {name} in {project} is mirrored ({error})", error) from error
        return found

    # Freshness

    @property
    def as_of(self) -> datetime | None:
        """The time up to which the shown data is complete, aware, UTC: it has everything that was on the server then.

        This is the oldest of the last complete syncs of the projects that were used, or of all projects if none was
        used; None if one of them was never synced completely.
        """
        return self._view.as_of()

    def refresh(self, *, pull: bool = False) -> None:
        """Move to the newest snapshot; with `pull`, pull what changed on the server first.

        `Run` objects from before keep their snapshot; get them again to see newer data.
        """
        if pull:
            self.session.pull(self._view.projects_used())
        self._view.check_again()

    def flush(self, *paths: str) -> None:
        """Forget what was cached, pull from the server, and show the new values from then on.

        Without paths: pulls runs that were opened one by one again completely, and of listed projects what changed.
        With paths (projects or runs): pulls everything of them again, as `mirror flush` does, which takes longer the
        longer their history is. Goes through the daemon if one runs. Raises CommError.
        """
        self._view.flush(paths)

    # The server's side

    @property
    def viewer(self) -> User:
        """The owner of the API key: as the last pass pulled it, else asked of the server. Raises CommError."""
        if self._viewer is None:
            record = self._mirrored_viewer()
            if record is None:
                record = self.session.ask(lambda server: server.viewer())
            self._viewer = User(record, lambda: self._official.viewer, whole=True)
        return self._viewer

    @property
    def default_entity(self) -> str | None:
        """The entity of paths without one: as set, else the viewer's, from the mirror or the server.

        If neither is available, the only mirrored entity. Raises CommError if there are several.
        """
        if self.settings["entity"]:
            return self.settings["entity"]
        try:
            entity: str | None = getattr(self.viewer, "entity", None)
        except CommError:
            entities = {name.entity for name in self._view.snapshot.projects}
            if len(entities) != 1:
                raise
            entity = entities.pop()
        return entity

    @property
    def api_key(self) -> str | None:
        """The API key for the server; None without one."""
        return self.session.api_key

    @property
    def user_agent(self) -> str:
        """The name of this library in requests to the server."""
        return f"wandb-mirror/{VERSION}"

    def create_run(self, *, run_id: str | None = None, project: str | None = None, entity: str | None = None) -> Run:
        """Create an empty run on the server, then in the mirror. Raises CommError and MissingPackage."""
        return self.created(lambda official, _: official.create_run(run_id=run_id, project=project, entity=entity))

    def created(self, make: Callable[[Any, Any], Any]) -> Run:
        """Return the run that `make` creates; it gets the official client's `Api` object and `Run` class."""

        def create() -> Any:
            official = self._official
            from wandb.apis.public import Run as OfficialRun

            return make(official, OfficialRun)

        run = call_server(create)
        path = f"{run.entity}/{run.project}/{run.id}"
        self.session.pull_written([path])
        self._view.forget()
        return self.run(path)

    def from_path(self, path: str) -> Any:
        """Return the run, sweep, report or project at a path such as "team/project/sweeps/id"."""
        parts = path.strip("/ ").split("/")
        kind = parts[2] if len(parts) == 4 else "run" if len(parts) == 3 else ""
        if len(parts) <= 2:
            return self.project(parts[-1], parts[0] if len(parts) == 2 else None)
        if kind.startswith("run"):
            return self.run(path)
        if kind.startswith("sweep"):
            return self.sweep(path)
        if kind.startswith("report"):
            view_id = parts[3].rpartition("--")[2].rstrip("=")
            for report in self.reports("/".join(parts[:2])):
                if report.id.rstrip("=") == view_id:
                    return report
            return call_server(lambda: self._official.from_path(path))
        raise ArgumentError(f"{path!r}: use entity/project/runs/id, or sweeps or reports instead of runs")

    automation = official_method("automation")
    automations = official_method("automations")
    create_automation = official_method("create_automation")
    create_custom_chart = official_method("create_custom_chart")
    create_project = official_method("create_project")
    create_registry = official_method("create_registry")
    create_run_queue = official_method("create_run_queue")
    create_team = official_method("create_team")
    create_user = official_method("create_user")
    delete_automation = official_method("delete_automation")
    integrations = official_method("integrations")
    job = official_method("job")
    list_jobs = official_method("list_jobs")
    organization = official_method("organization")
    queued_run = official_method("queued_run")
    registries = official_method("registries")
    registry = official_method("registry")
    run_queue = official_method("run_queue")
    slack_integrations = official_method("slack_integrations")
    team = official_method("team")
    update_automation = official_method("update_automation")
    upsert_run_queue = official_method("upsert_run_queue")
    user = official_method("user")
    users = official_method("users")
    webhook_integrations = official_method("webhook_integrations")

    @property
    def _official(self) -> Any:
        return self.session.official

    def _mirrored_viewer(self) -> dict[str, Any] | None:
        """Return the owner of the key as the last pass pulled it; None if it did not, or nothing is mirrored yet."""
        with suppress(StoreError):
            address = self.session.settings.server.base_url
            viewer: dict[str, Any] | None = self._view.snapshot.server(address).get("viewer")
            return viewer or None
        return None

    def facts_of(self, entity: str, project: str) -> Mapping[str, Any]:
        """Return what the server reported about a mirrored project, by the field names of its API."""
        key = ("project", entity, project)
        if key not in self._view.known:
            self._view.known[key] = self._view.snapshot.project_facts(entity, project)
        facts: Mapping[str, Any] = self._view.known[key]
        return facts

    # For runs

    def newest(self) -> Snapshot:
        """Move to the newest snapshot and return it."""
        self._view.forget()
        return self._view.snapshot

    def _resolve(self, find: Callable[[str | None], Found]) -> Found:
        """Return what `find` finds in the set entity; if several entities match and none is set, in the viewer's."""
        entity = self.settings["entity"]
        try:
            return find(entity)
        except NotMirrored as error:
            if entity or not isinstance(error.exc, Ambiguous):
                raise
            viewer_entity = (self._mirrored_viewer() or {}).get("entity")
            if viewer_entity is None:
                raise
            try:
                return find(viewer_entity)
            except NotMirrored:
                raise error from None

    def _run_path(self, path: str, what: str = "run") -> str:
        """Normalise a path or page address, and put the set project before it. Raises ArgumentError."""
        if not isinstance(path, str):
            raise ArgumentError(f"{path!r} is not a {what} path; use entity/project/{what}_id")
        text = re.sub(r"[?#].*$", "", path_of(path.strip()))
        text = text.replace("/runs/", "/").replace("/sweeps/", "/").strip("/ ")
        parts = [part.strip() for part in text.split("/")]
        if ":" in parts[-1] and len(parts) < 3:
            parts[-1:] = parts[-1].split(":", 1)
        if not all(parts):
            raise ArgumentError(f"{path!r} is not a {what} path; use entity/project/{what}_id")
        if len(parts) == 1 and self.settings["project"]:
            parts.insert(0, self.settings["project"])
        return "/".join(parts)

    def __repr__(self) -> str:
        return f"<Api of {self.session}>"
