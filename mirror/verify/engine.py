"""Verifies several projects, and repairs what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mirror.errors import MirrorError
from mirror.patterns import fitting
from mirror.remote.client import Server
from mirror.settings.home import Home
from mirror.settings.settings import SyncSettings
from mirror.store import projects, segment_checks
from mirror.store import reader as store
from mirror.store.reader import Reader
from mirror.store.records import ProjectKey
from mirror.sync.context import Context, PassResult, Progress, Scope
from mirror.sync.project import sync_project
from mirror.sync.targets import Pattern, Target
from mirror.verify.complete import judge
from mirror.verify.findings import Finding, Level, Verdict, of_damage
from mirror.verify.project import verify_project

RUNS_AT_ONCE = 200
"""How many runs one pass of a repair pulls again."""


async def verify(
    server: Server,
    home: Home,
    scope: Scope,
    targets: Sequence[Target],
    progress: Progress,
    *,
    deep: bool,
    patterns: Sequence[Pattern] = (),
    all_segments: bool = False,
    complete: SyncSettings | None = None,
) -> list[Verdict]:
    """Compare each target with the server, over one snapshot of the published file. Writes nothing.

    Also reports mirrored projects that match one of the `patterns`, which the targets came from, but are not among the
    targets. With `all_segments`, the segments of all other projects are read completely, too, and there is a verdict
    on each project with damaged segments.

    With `complete`, what the config mirrors, each verdict also says of each run whether the mirror has everything.

    Raises StoreError if there is no published file, or if it cannot be read.
    """
    progress.projects_expected(len(targets))
    with store.opened(home) as reader:
        verdicts = []
        for target in targets:
            verdict = await verify_project(server, reader, scope, target, progress, deep=deep)
            if complete is not None:
                await _judge(server, reader, complete, target, verdict)
            verdicts.append(verdict)
        wanted = {target.project for target in targets}
        known = wanted | set(projects.everything(reader))
        matching = {project for pattern in patterns if pattern.wild for project in _matching(pattern, known)}
        verdicts += [_gone(project, deep) for project in sorted(matching - wanted, key=str)]
        if all_segments:
            for project in sorted(known - wanted - matching, key=str):
                verdicts += _damaged(reader, project, deep)
        return verdicts


async def _judge(server: Server, reader: Reader, sync: SyncSettings, target: Target, verdict: Verdict) -> None:
    """Add the verdict on each run. Errors are reported, not raised: what was not looked at is not complete."""
    try:
        verdict.complete = await judge(server, reader, sync, target, verdict)
    except MirrorError as error:
        verdict.complete = []
        verdict.error = verdict.error or str(error)
        verdict.exit_code = max(verdict.exit_code, error.exit_code)


def _damaged(reader: Reader, project: ProjectKey, deep: bool) -> list[Verdict]:
    """The verdict on a project that is not compared with the server, if some of its segments are damaged."""
    broken = segment_checks.segment_damage(reader, reader.home.history, project, others=False)
    mirrored = store.mirrored(reader, project)
    if not broken or mirrored is None:
        return []
    alone = frozenset(run_id for run_id, run in mirrored.known.items() if run.deleted or run.local)
    return [Verdict(project, deep, findings=[of_damage(one) for one in broken.values()], alone=alone)]


def _matching(pattern: Pattern, known: Iterable[ProjectKey]) -> list[ProjectKey]:
    names = fitting(pattern.project, (project.project for project in known if project.entity == pattern.entity))
    return [ProjectKey(pattern.entity, name) for name in names]


def _gone(project: ProjectKey, deep: bool) -> Verdict:
    cause = "deleted or renamed on the server, or the key may no longer read it; what is mirrored stays"
    finding = Finding(Level.DIFFERS, None, "project", "a project", "no such project", cause)
    return Verdict(project, deep, findings=[finding])


async def repair(
    context: Context, damaged: Sequence[ProjectKey], flush: Mapping[ProjectKey, Sequence[str]]
) -> tuple[dict[str, list[str]], list[PassResult]]:
    """Repair what disagrees within the store, then pull these runs again; report what both did.

    Everything committed is published before this returns.
    """
    mended = {str(project): await context.writer.mend(project) for project in damaged}
    results = []
    for project, run_ids in flush.items():
        for start in range(0, len(run_ids), RUNS_AT_ONCE):
            names = run_ids[start : start + RUNS_AT_ONCE]
            results.append(await sync_project(context, project, run_ids=names, afresh=True))
    await context.writer.maintain()
    await context.writer.publish()
    return mended, results
