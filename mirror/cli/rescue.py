"""`mirror verify --local`: compares the official client's files with the server, and uploads rows the server lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from msgspec import Struct, field
from msgspec.structs import asdict

from mirror.cli import ending
from mirror.cli.findings import compared_of, cost_of, differences, show_findings, some
from mirror.cli.invocation import Invocation
from mirror.cli.messages import ExitCode, fail, leave, say, warn
from mirror.errors import SyncError, UsageError, named

if TYPE_CHECKING:
    from mirror.local.commits import FileResult
    from mirror.remote.client import Server
    from mirror.rescue.findings import Comparison, Look
    from mirror.rescue.gather import Gathered
    from mirror.rescue.upload import Sent
    from mirror.settings.settings import Settings
    from mirror.verify.findings import Verdict


class _Answer(Struct):
    """The comparisons; with --upload also those from before the upload, and what was sent or would be sent."""

    comparisons: list[Comparison]
    results: Sequence[FileResult] = ()
    before: list[Comparison] | None = None
    sent: list[Sent] = field(default_factory=list)
    offered: list[Look] = field(default_factory=list)

    def unreadable(self) -> list[FileResult]:
        """Return the files that could not be read, completely or in part."""
        return [result for result in self.results if result.outcome == "failed" or result.unreadable]

    def exit_code(self) -> ExitCode:
        """Return the highest exit code of all comparisons and uploads."""
        verdicts = [one.verdict for one in self.comparisons]
        codes = [verdict.exit_code for verdict in verdicts] + [sent.exit_code for sent in self.sent]
        failed = bool(self.unreadable()) or not all(verdict.equal for verdict in verdicts)
        return ExitCode(max([*codes, ExitCode.FAILED if failed else ExitCode.DONE]))

    def as_json(self) -> dict[str, Any]:
        """Return the documented JSON form."""
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
            "equal": not self.unreadable() and all(one.verdict.equal for one in self.comparisons),
            "files": [result.as_json() for result in self.results],
            "projects": [one.verdict.as_json() for one in self.comparisons],
            "upload": upload,
        }


def _plain(sent: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sent.items() if key not in ("exit_code", "unreachable")}


def _offer(look: Look) -> dict[str, Any]:
    return {"rows": 0 if look.tail is None else look.tail.rows, "summary": len(look.summary)}


def verify_files(given: Invocation, paths: Sequence[str], *, upload: bool, dry_run: bool, as_json: bool) -> None:
    """Compare, upload if asked, compare again, and end the command with the exit code."""
    if dry_run and not upload:
        raise UsageError("--dry-run needs --upload: it prints what would be sent")
    settings = given.settings()
    folders = [Path(path).expanduser() for path in paths or settings.local.dirs]
    if not folders:
        raise UsageError("which files? name folders that hold wandb/ or run folders: mirror verify --local DIR...")
    answer = ending.run(_run(given, settings, folders, upload=upload, dry_run=dry_run))
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
    """Send the runs one by one, then compare everything again."""
    from mirror.rescue.upload import send

    for look in offered:
        sent = await send(server, look)
        answer.sent.append(sent)
        if sent.unreachable:
            break
    answer.comparisons = await _compare(server, files)


def _show(answer: _Answer) -> None:
    """Print differences on stdout, one per line; what was compared and what was sent on stderr."""
    for result in answer.results:
        for text in _warnings(result):
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
        say(f"{some(len(answer.results), 'file', 'files')} without a run")


def _summary(verdict: Verdict) -> str:
    from mirror.verify.findings import Level

    compared, cost = compared_of(verdict), cost_of(verdict)
    live = len({found.run_id for found in verdict.of(Level.BEHIND)})
    late = f", except for {some(live, 'run that is', 'runs that are')} still running" if live else ""
    if not verdict.equal:
        return f"{some(len(differences(verdict)), 'difference', 'differences')} in {compared}{late} ({cost})"
    return f"{compared} equal the server's, value by value{late} ({cost})"


def _show_sent(sent: Sent) -> None:
    parts = [some(sent.rows, "row", "rows")] if sent.rows else []
    parts += [some(sent.summary, "summary value", "summary values")] if sent.summary else []
    if parts:
        say(f"sent {sent.path}: {' and '.join(parts)}")
    if sent.state != sent.before:
        warn(f"{sent.path} was {sent.before} and is {sent.state} now: the server did not accept its former state")
    if sent.error:
        warn(f"not {'completely ' if parts else ''}sent: {named(sent.path, sent.error)}")


def _show_upload(answer: _Answer) -> None:
    before = sum(len(differences(one.verdict)) for one in answer.before or ())
    differing = some(before, "difference", "differences")
    if answer.offered:
        say(f"dry run: nothing was sent; {some(len(answer.offered), 'run', 'runs')} would get what is listed above")
    elif not answer.sent:
        say(f"{differing}; none of them can be sent" if before else "nothing to send")
    else:
        after = sum(len(differences(one.verdict)) for one in answer.comparisons)
        say(f"{differing} before the upload, {after:,} after it")


def _warnings(result: FileResult) -> list[str]:
    """Return the warnings about a file."""
    warnings = [result.note, result.trouble(), *result.unreadable]
    if result.error:
        warnings.append(f"cannot be read: {result.error}")
    if result.outcome == "empty":
        warnings.append("it holds no run")
    return [text for text in warnings if text]
