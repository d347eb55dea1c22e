"""Judges for each run whether everything that the server holds of it is in the mirror and proven.

Records, summaries and history are compared by `mirror.verify.project`, value by value. Here come the parts that the
config may leave out: the server is asked for its lists of files and artifacts, and each content that is named is read
and compared with its digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from msgspec import Struct, field

from mirror.protocol import ENDED_STATES
from mirror.remote import artifacts as remote_artifacts
from mirror.remote import files as remote_files
from mirror.remote.client import Server
from mirror.settings.settings import SyncSettings
from mirror.store import completeness
from mirror.store import files as store_files
from mirror.store.artifact_records import Use
from mirror.store.blobs import Blobs
from mirror.store.completeness import HeldArtifact, HeldContent, HeldRun
from mirror.store.reader import Reader
from mirror.store.records import RunFile
from mirror.sync.targets import Target
from mirror.verify.findings import Completeness, Finding, Level, Missing, Verdict

RUNS_AT_ONCE = 25

DERIVED = frozenset({"wandb-history"})
"""Types of artifacts that hold a run's history once more."""

_SYNC = "run `mirror sync`"
_REPAIR = "run `mirror verify --repair`"


class _Checked(Struct):
    """The content that was read until now: what is wrong with each, by digest; None for nothing."""

    blobs: Blobs
    problems: dict[str, str | None] = field(default_factory=dict)

    def problem(self, held: HeldContent) -> str | None:
        """Return what is wrong with a content, reading all of it."""
        assert held.digest is not None
        if held.digest not in self.problems:
            path = self.blobs.path(held.digest)
            self.problems[held.digest] = store_files.problem(path, held.size or 0, held.digest)
        return self.problems[held.digest]


class _Lacking(Struct):
    """Files that are missing for one reason: how many, their bytes, and the first."""

    first: str
    count: int = 0
    size: int = 0


async def judge(
    server: Server, reader: Reader, sync: SyncSettings, target: Target, verdict: Verdict
) -> list[Completeness]:
    """Return the verdict on each run of a target, of which `verdict` is the deep comparison. Raises CommError."""
    runs = await asyncio.to_thread(completeness.runs, reader, target.project, target.run_ids)
    runs = [run for run in runs if run.run_id not in verdict.alone]
    checked = _Checked(Blobs(reader.home.blobs))
    judged = []
    for start in range(0, len(runs), RUNS_AT_ONCE):
        some = runs[start : start + RUNS_AT_ONCE]
        names = [run.run_id for run in some]
        listed = await remote_files.lists(server, target.project, names)
        uses = await remote_artifacts.uses(server, target.project, names)
        logged = {name: [use for use in uses.get(name, ()) if _counts(use)] for name in names}
        ids = list({use.artifact_id for several in logged.values() for use in several})
        held = await asyncio.to_thread(completeness.files, reader, [run.rid for run in some])
        artifacts = await asyncio.to_thread(completeness.artifacts, reader, ids)
        for run in some:
            one = Completeness(run.run_id, rows=run.rows)
            one.missing += _compared(verdict, run)
            one.missing += _counted(run, sync)
            on_server = listed.get(run.run_id, ())
            one.missing += await asyncio.to_thread(
                _files, one, on_server, held.get(run.rid, {}), sync.files.globs, checked
            )
            one.missing += await asyncio.to_thread(_artifacts, one, logged[run.run_id], artifacts, sync, checked)
            judged.append(one)
    known = {run.run_id for run in runs}
    judged += [
        Completeness(run_id, missing=list(_differences(found)))
        for run_id, found in _by_run(verdict.findings).items()
        if run_id not in known | verdict.alone
    ]
    return sorted(judged, key=lambda one: one.run_id)


def _counts(use: Use) -> bool:
    return use.relation == "output" and use.type not in DERIVED


def _by_run(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.run_id is not None:
            found.setdefault(finding.run_id, []).append(finding)
    return found


def _compared(verdict: Verdict, run: HeldRun) -> Iterable[Missing]:
    """What the comparison of records, summaries and history found, and what kept it from proving them."""
    if verdict.error:
        yield Missing("comparison", verdict.error, "try again")
    if run.state not in ENDED_STATES:
        yield Missing("state", f"the run is {run.state}", "wait until it has ended")
    yield from _differences(finding for finding in verdict.findings if finding.run_id in (None, run.run_id))


def _differences(findings: Iterable[Finding]) -> Iterable[Missing]:
    for finding in findings:
        if finding.level is Level.NOTE:
            if not finding.proven:
                yield Missing(finding.field, finding.cause, "it cannot be proven")
            continue
        advice = _SYNC if finding.level is Level.BEHIND else _REPAIR
        detail = f"the mirror has {finding.mirror}, not {finding.expected}; {finding.cause}"
        yield Missing(finding.field, detail, advice)


def _counted(run: HeldRun, sync: SyncSettings) -> Iterable[Missing]:
    """Parts of a run that the server counts, and that the config may leave out."""
    if "*" not in sync.history:
        keys = ", ".join(sync.history) or "none"
        yield Missing("history", f"only these keys are mirrored: {keys}", 'set sync.history = ["*"]')
    parts: tuple[tuple[str, str, bool, int | None, int | None], ...] = (
        ("system metrics", "sync.system_metrics", sync.system_metrics, run.server_events, run.events),
        ("console", "sync.console", sync.console, run.server_log_lines, run.log_lines),
    )
    for what, setting, on, count, pulled in parts:
        if count == 0 or (on and pulled is not None and (count is None or pulled == count)):
            continue
        lines = "the server does not say how many lines" if count is None else f"{count:,} lines"
        yield Missing(what, f"{lines} are not mirrored", _SYNC if on else f"set {setting} = true")


def _files(
    one: Completeness,
    listed: Iterable[RunFile],
    held: dict[str, HeldContent],
    globs: Sequence[str],
    checked: _Checked,
) -> list[Missing]:
    """Compare the server's list of a run's files with what is held; count them in `one`."""
    lacking: dict[str, _Lacking] = {}
    for file in listed:
        one.files += 1
        one.size += file.size
        content = held.get(file.name)
        if content is None or not content.is_of(file):
            reason = _why_no_file(file.name, content, globs)
        elif problem := checked.problem(content):
            reason = f"{_REPAIR}: here is {problem}"
        else:
            one.by_size += file.md5 is None
            continue
        _note(lacking, reason, file.name, file.size)
    return _summarised("files", lacking)


def _why_no_file(name: str, content: HeldContent | None, globs: Collection[str]) -> str:
    if not any(fnmatchcase(name, glob) for glob in globs):
        return 'set sync.files = "content"'
    if content is not None and content.error:
        return f"failed, will be retried: {content.error}"
    return f"left out by sync.files_max or sync.files_budget, or not pulled yet: {_SYNC}"


def _artifacts(
    one: Completeness, logged: Sequence[Use], mirrored: dict[str, HeldArtifact], sync: SyncSettings, checked: _Checked
) -> list[Missing]:
    """Compare the artifacts that a run logged with what is held; count them in `one`."""
    missing: list[Missing] = []
    for use in logged:
        one.artifacts += 1
        what = f"artifact {use.type}/{use.collection}:v{use.number}"
        held = mirrored.get(use.artifact_id)
        wanted = _SYNC if sync.artifacts.patterns else 'set sync.artifacts = "content"'
        if held is None or not held.listed:
            missing.append(Missing(what, "its list of files is not mirrored", wanted))
            continue
        lacking: dict[str, _Lacking] = {}
        for path, (size, content) in held.files.items():
            one.size += size
            if content is None or content.digest is None:
                failed = content is not None and content.error
                _note(lacking, f"failed, will be retried: {failed}" if failed else _why_no_content(sync), path, size)
            elif problem := checked.problem(content):
                _note(lacking, f"{_REPAIR}: here is {problem}", path, size)
        missing += _summarised(what, lacking)
    return missing


def _why_no_content(sync: SyncSettings) -> str:
    if not sync.artifacts.patterns:
        return 'set sync.artifacts = "content"'
    return f'the patterns of sync.artifacts leave it out ("content" has all), or it is not pulled yet: {_SYNC}'


def _note(lacking: dict[str, _Lacking], reason: str, name: str, size: int) -> None:
    some = lacking.setdefault(reason, _Lacking(name))
    some.count += 1
    some.size += size


def _summarised(what: str, lacking: dict[str, _Lacking]) -> list[Missing]:
    return [
        Missing(what, f"{some.count:,} not here ({some.size:,} bytes), such as {some.first}", reason)
        for reason, some in lacking.items()
    ]
