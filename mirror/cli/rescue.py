"""`mirror verify --local`: the official client's files against the server, and what it lost sent to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mirror.cli.invocation import Invocation
from mirror.cli.messages import ExitCode, fail, leave, say, warn
from mirror.cli.verify import compared_of, cost_of, differences, show_findings, some
from mirror.errors import SyncError, UsageError, named

if TYPE_CHECKING:
    from mirror.local.commits import FileResult
    from mirror.remote.client import Server
    from mirror.rescue.findings import Comparison, Look
    from mirror.rescue.gather import Gathered
    from mirror.rescue.upload import Sent
    from mirror.settings.settings import Settings
    from mirror.verify.findings import Verdict


@dataclass
class _Answer:
    """What was found; with --upload also what was found before, and what was sent or would be."""

    comparisons: list[Comparison]
    results: Sequence[FileResult] = ()
    before: list[Comparison] | None = None
    sent: list[Sent] = field(default_factory=list)
    offered: list[Look] = field(default_factory=list)

    def troubled(self) -> list[FileResult]:
        """The files of which something could not be read."""
        return [result for result in self.results if result.outcome == "failed" or result.unreadable]

    def exit_code(self) -> ExitCode:
        """The worst of all."""
        verdicts = [one.verdict for one in self.comparisons]
        codes = [verdict.exit_code for verdict in verdicts] + [sent.exit_code for sent in self.sent]
        failed = bool(self.troubled()) or not all(verdict.equal for verdict in verdicts)
        return ExitCode(max([*codes, ExitCode.FAILED if failed else ExitCode.DONE]))

    def as_json(self) -> dict[str, Any]:
        """The documented JSON form."""
        upload = None
        if self.before is not None:
            upload = {
                "differed": [
                    found.as_json(one.verdict.project) for one in self.before for found in differences(one.verdict)
                ],
                "sent": [_plain(asdict(sent)) for sent in self.sent],
                "would_send": [{"path": look.path, **_offer(look)} for look in self.offered],
            }
        return {
            "equal": not self.troubled() and all(one.verdict.equal for one in self.comparisons),
            "files": [result.as_json() for result in self.results],
            "projects": [one.verdict.as_json() for one in self.comparisons],
            "upload": upload,
        }


def _plain(sent: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sent.items() if key not in ("exit_code", "unreachable")}


def _offer(look: Look) -> dict[str, Any]:
    return {"rows": 0 if look.tail is None else look.tail.rows, "summary": len(look.summary)}


def verify_files(given: Invocation, paths: Sequence[str], *, upload: bool, dry_run: bool, as_json: bool) -> None:
    """Compare, send, compare again, and leave with the exit code."""
    if dry_run and not upload:
        raise UsageError("--dry-run goes with --upload: it says what would be sent")
    settings = given.settings()
    folders = [Path(path).expanduser() for path in paths or settings.local.dirs]
    if not folders:
        raise UsageError("which files? name folders that hold wandb/ or run folders: mirror verify --local DIR...")
    answer = asyncio.run(_run(given, settings, folders, upload=upload, dry_run=dry_run))
    if as_json:
        typer.echo(json.dumps(answer.as_json(), indent=2, ensure_ascii=False))
    else:
        _show(answer)
    if code := answer.exit_code():
        leave(code)


async def _run(
    given: Invocation, settings: Settings, folders: Sequence[Path], *, upload: bool, dry_run: bool
) -> _Answer:
    from mirror.rescue import gather
    from mirror.sync.session import connect

    found = await asyncio.to_thread(gather.find, folders)
    async with connect(settings, given.environ) as server:
        entity = await gather.entity_of(found, server, settings.entity or settings.local.entity or None)
        async with gather.gathered(found, entity) as files:
            answer = _Answer(await _compare(server, files), files.results)
            if upload:
                answer.before = answer.comparisons
                offered = [look for one in answer.comparisons for look in one.looks if look.sendable]
                if dry_run:
                    answer.offered = offered
                elif offered:
                    await _upload(server, files, answer, offered)
            return answer


async def _compare(server: Server, files: Gathered) -> list[Comparison]:
    from mirror.cli.progress import bars
    from mirror.rescue.compare import compare

    runs = files.runs()
    with bars() as progress:
        progress.projects_expected(len(runs))
        return [await compare(server, files, project, run_ids, progress) for project, run_ids in runs.items()]


async def _upload(server: Server, files: Gathered, answer: _Answer, offered: Sequence[Look]) -> None:
    """Send one run after the other, then compare everything again."""
    from mirror.rescue.upload import send

    for look in offered:
        sent = await send(server, look)
        answer.sent.append(sent)
        if sent.unreachable:
            break
    answer.comparisons = await _compare(server, files)


def _show(answer: _Answer) -> None:
    """Differences on stdout, a line each; what was compared, and what was sent, on stderr."""
    for result in answer.results:
        for text in _troubles(result):
            warn(f"{result.path}: {text}")
    for sent in answer.sent:
        _show_sent(sent)
    for look in answer.offered:
        say(f"would send {look.path}: {look.offer()}")
    for one in answer.comparisons:
        show_findings(one.verdict)
        if one.verdict.error:
            failure = SyncError(named(one.verdict.project, one.verdict.error))
            failure.exit_code = one.verdict.exit_code
            fail(failure)
            continue
        say(f"{one.verdict.project}: {_summary(one.verdict)}")
    if answer.before is not None:
        _show_upload(answer)
    if not answer.comparisons:
        say(f"{some(len(answer.results), 'file', 'files')}, and no run in them")


def _summary(verdict: Verdict) -> str:
    from mirror.verify.findings import Level

    compared, cost = compared_of(verdict), cost_of(verdict)
    live = len({found.run_id for found in verdict.of(Level.BEHIND)})
    late = f", but for {some(live, 'run that goes', 'runs that go')} on" if live else ""
    if not verdict.equal:
        return f"{some(len(differences(verdict)), 'difference', 'differences')} in {compared}{late} ({cost})"
    return f"{compared} equal the server's, value by value{late} ({cost})"


def _show_sent(sent: Sent) -> None:
    parts = [some(sent.rows, "row", "rows")] if sent.rows else []
    parts += [some(sent.summary, "summary value", "summary values")] if sent.summary else []
    if parts:
        say(f"sent {sent.path}: {' and '.join(parts)}")
    if sent.state != sent.before:
        warn(f"{sent.path} was {sent.before} and is {sent.state} now: the server did not take its former state")
    if sent.error:
        warn(f"not sent{' whole' if parts else ''}: {named(sent.path, sent.error)}")


def _show_upload(answer: _Answer) -> None:
    before = sum(len(differences(one.verdict)) for one in answer.before or ())
    told = some(before, "difference", "differences")
    if answer.offered:
        say(f"dry run: nothing was sent; {some(len(answer.offered), 'run', 'runs')} would be sent what the lines say")
    elif not answer.sent:
        say(f"{told}; nothing of it can be sent" if before else "nothing to send")
    else:
        after = sum(len(differences(one.verdict)) for one in answer.comparisons)
        say(f"{told} before the upload, {after:,} after it")


def _troubles(result: FileResult) -> list[str]:
    """What is to be told of a file."""
    found = [result.note, result.trouble(), *result.unreadable]
    if result.error:
        found.append(f"cannot be read: {result.error}")
    if result.outcome == "empty":
        found.append("it tells of no run")
    return [text for text in found if text]
