"""`mirror doctor`: checks the mirror and its environment, and says what to do about problems."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.invocation import invocation
from mirror.cli.messages import ExitCode, leave
from mirror.errors import one_line

if TYPE_CHECKING:
    from mirror.doctor.findings import Finding


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Check config, files, disk, key, server, clock and daemon, and say what to do about problems.

    Changes nothing and never shows the key. Exit code 1 if a check fails.
    """
    from mirror.cli.output import write_text
    from mirror.doctor.examination import examine

    given = invocation(context)
    findings = []
    for finding in examine(given.home, given.environ):
        findings.append(finding)
        if not as_json:
            write_text(_lines(finding))
    if as_json:
        write_text(json.dumps([finding.as_json() for finding in findings], indent=2) + "\n")
    if any(finding.level == "fail" for finding in findings):
        leave(ExitCode.FAILED)


def _lines(finding: Finding) -> str:
    text = f"{finding.level:<4}  {finding.check:<11}  {one_line(finding.message)}\n"
    return f"{text}{'':19}-> {one_line(finding.advice)}\n" if finding.advice else text
