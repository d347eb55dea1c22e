"""Writes runs to an MLflow tracking server, and continues where an earlier export ended."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from mirror.errors import one_line
from mirror.move import mlflow_run as made
from mirror.move.chosen import Chosen
from mirror.move.file_names import refusal
from mirror.move.mlflow_client import Refused, Tracking
from mirror.move.mlflow_names import cleaned, unique
from mirror.move.mlflow_run import Measured, Measures
from mirror.snapshot import console, whole_runs
from mirror.snapshot.history_keys import names as history_names
from mirror.snapshot.whole_runs import Logged, RunFile, WholeRun
from mirror.wandb_json import dumps

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

METRICS_AT_ONCE = 999
"""MLflow accepts 1,000 entities in a batch, of which one is the tag that says how far the export has come."""

PARAMS_AT_ONCE = 100

_LINES_AT_ONCE = 10_000

_EXPORTED, _PROGRESS = "wandb_mirror.exported", "wandb_mirror.progress"
"""Tags: the fingerprint of a run that is exported completely, and the last metric that was logged of each kind."""

_GIVEN_UP = 3
"""After so many runs in a row whose artifacts failed, none are tried any more."""


class Sent(Struct):
    """What was done. `left_out` has a sentence for each thing that was not exported."""

    new: int = 0
    continued: int = 0
    unchanged: int = 0
    metrics: int = 0
    files: int = 0
    left_out: list[str] = field(default_factory=list)


def export(
    connection: DuckDBPyConnection, chosen: Chosen, tracking: Tracking, done: Callable[[int], object] = lambda _: None
) -> Sent:
    """Export each run to the experiment of its project. `done` gets the number of runs so far.

    A run that is refused is named, and the next one follows. Raises CommError if the server cannot be reached.
    """
    sent = Sent()
    artifacts = _Artifacts()
    known: dict[str, dict[str, tuple[str, dict[str, str]]]] = {}
    runs = 0
    for page in chosen.pages(connection):
        experiment = tracking.experiment(str(page[0].project))
        if experiment not in known:
            known = {experiment: tracking.runs(experiment, made.RUN_PATH)}
        changed = []
        files = whole_runs.files(connection, page)
        for one in page:
            here = known[experiment].get(one.path)
            if here is not None and here[1].get(_EXPORTED) == made.fingerprint(one, files.get(one.run_id, ())):
                sent.unchanged += 1
            else:
                changed.append(one)
        for found in whole_runs.logged(connection, changed):
            one = found.run
            run = _Run(connection, tracking, one, files.get(one.run_id, ()), sent, artifacts)
            try:
                run.export(experiment, known[experiment].get(one.path), found)
            except Refused as error:
                sent.left_out.append(f"{one.path}: {error}")
        runs += len(page)
        done(runs)
    return sent


class _Artifacts:
    """Whether artifacts can be uploaded: `failed` counts runs in a row in which that failed."""

    failed = 0


@dataclass
class _Run:
    connection: DuckDBPyConnection
    tracking: Tracking
    one: WholeRun
    files: Sequence[RunFile]
    sent: Sent
    artifacts: _Artifacts

    def export(self, experiment: str, here: tuple[str, dict[str, str]] | None, logged: Logged) -> None:
        one, tags = self.one, made.tags(self.one)
        params, _ = made.params(one)
        if here is None:
            own = {made.RUN_PATH: one.path}
            self.id = self.tracking.create(experiment, one.name or one.run_id, made.milliseconds(one.created_at), own)
            self.known, there = own, {}
            self.sent.new += 1
        else:
            self.id, self.known = here
            there = self.tracking.params(self.id)
            self.sent.continued += 1
        self.tracking.tag(self.id, {key: text for key, text in tags.items() if self.known.get(key) != text})
        self._params(params, there)
        with tempfile.TemporaryDirectory() as folder:
            self._values(Path(folder), logged)
            whole = self._upload(Path(folder))
        self.tracking.finish(self.id, made.status(one), made.milliseconds(one.heartbeat_at))
        if whole:
            self.tracking.tag(self.id, {_EXPORTED: made.fingerprint(one, self.files)})

    def _params(self, params: dict[str, str], logged: dict[str, str]) -> None:
        """Log the parameters that are not there; MLflow does not let the value of one change."""
        if changed := [key for key, text in params.items() if key in logged and logged[key] != text]:
            what = ", ".join(changed[:3])
            self.sent.left_out.append(
                f"{self.one.path}: MLflow keeps the earlier values of {len(changed):,} params ({what})"
            )
        missing = iter([(key, text) for key, text in params.items() if key not in logged])
        while batch := dict(islice(missing, PARAMS_AT_ONCE)):
            self.tracking.log(self.id, params=batch)

    def _values(self, folder: Path, logged: Logged) -> None:
        """Log the metrics, and write other values to a file of the folder."""
        one = self.one
        own = folder / "wandb"
        own.mkdir()
        names = unique(history_names(self.connection, one.rid))
        with (own / "history_text.jsonl").open("w", encoding="utf-8", errors="replace") as texts:
            history = Measures(one, names, texts)
            self._log("history", history.read(logged.history))
        if not history.other:
            (own / "history_text.jsonl").unlink()
        self._summary(list(history.summary(one)))
        system = Measures(one, _SystemNames())
        self._log("system", system.read(logged.events))
        (own / "config.json").write_text(dumps(one.config), encoding="utf-8", errors="replace")
        (own / "summary.json").write_text(dumps(one.summary), encoding="utf-8", errors="replace")
        if one.metadata:
            (own / "metadata.json").write_text(dumps(one.metadata), encoding="utf-8", errors="replace")
        start = 0
        while lines := console.lines(self.connection, one.rid, start, _LINES_AT_ONCE):
            with (own / "console.txt").open("a", encoding="utf-8", errors="replace") as file:
                file.writelines(f"{line.text}\n" for line in lines)
            start += len(lines)

    def _log(self, kind: str, measured: Iterator[Measured]) -> None:
        """Log the metrics after the last one that an earlier export logged."""
        tag = f"{_PROGRESS}.{kind}"
        reached = _place(self.known.get(tag))
        left = (one for one in measured if reached is None or (one.step, one.key) > reached)
        while batch := list(islice(left, METRICS_AT_ONCE)):
            text = json.dumps([batch[-1].step, batch[-1].key])
            self.tracking.log(self.id, metrics=batch, tags={tag: text} if len(text) <= made.LONGEST_TAG else {})
            self.sent.metrics += len(batch)

    def _summary(self, batch: Sequence[Measured]) -> None:
        """Log these metrics of the summary, unless an earlier export logged the same."""
        tag = f"{_PROGRESS}.summary"
        digest = hashlib.sha256(repr([(one.name, one.value) for one in batch]).encode()).hexdigest()[:32]
        if not batch or self.known.get(tag) == digest:
            return
        for start in range(0, len(batch), METRICS_AT_ONCE):
            self.tracking.log(self.id, metrics=batch[start : start + METRICS_AT_ONCE])
        self.tracking.tag(self.id, {tag: digest})
        self.sent.metrics += len(batch)

    def _upload(self, folder: Path) -> bool:
        """Upload the files of the run, and those in `folder`; returns True if all are there."""
        if self.artifacts.failed >= _GIVEN_UP:
            return False
        complete = True
        wanted = [(path, "wandb", path.name) for path in sorted((folder / "wandb").iterdir())]
        for found in self.files:
            if found.path is None:
                continue
            if (reason := refusal(found.name)) is not None:
                self.sent.left_out.append(f"{self.one.path}: file {found.name!r} {reason}")
                continue
            above, _, name = found.name.rpartition("/")
            wanted.append((found.path, f"files/{above}".rstrip("/"), name))
        try:
            there = self.tracking.artifacts(self.id)
            for number, (path, above, name) in enumerate(wanted):
                if above != "wandb" and there.get(f"{above}/{name}") == path.stat().st_size:
                    continue
                # The client uploads a file under its own name, and mirrored content is named by its digest.
                link = folder / str(number) / name
                link.parent.mkdir()
                link.symlink_to(path.absolute())
                self.tracking.upload(self.id, link, above)
                self.sent.files += 1
            self.artifacts.failed = 0
        except (Refused, OSError) as error:
            complete = False
            self.artifacts.failed += 1
            more = "; no more are tried" if self.artifacts.failed == _GIVEN_UP else ""
            self.sent.left_out.append(f"{self.one.path}: artifacts: {one_line(str(error))}{more}")
        return complete


class _SystemNames(dict[str, str]):
    """MLflow shows metrics below `system/` as system metrics."""

    def __missing__(self, key: str) -> str:
        self[key] = cleaned(f"system/{key.removeprefix('system.')}")
        return self[key]


def _place(text: str | None) -> tuple[int, str] | None:
    """Return the step and the key of a progress tag; None without one, or for a text of another form."""
    try:
        step, key = json.loads(text or "null")
    except (ValueError, TypeError):
        return None
    return (step, key) if isinstance(step, int) and isinstance(key, str) else None
