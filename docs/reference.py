"""Writes docs/cli.md from what `--help` of each command prints; with --check, tells whether the file is current."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parent
MIRROR = Path(sys.executable).with_name("mirror")

HEAD = """# Commands

The arguments and options of each command, as `--help` prints them. Data goes to stdout, messages to stderr.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the query, sync or verification failed, or some of its runs |
| 2 | usage or config |
| 3 | network or authentication |
| 4 | timed out, or the mirror is older than allowed |
| 130 | interrupted |

**Names.** RUN is `entity/project/run_id`, the address of the run's page, or only its id; in place of the id stands
the display name, too, if one run has it. An id wins over a name, a run over a deleted one of the same name. PATH is
`entity/project`, `entity/*`, or a project's name alone if one entity has it.

**Terms.** `mirror runs PATH TERM...`, and `--where TERM` wherever `--filter` is, take filters without JSON: one word
each, `KEY OP VALUE`, such as `state=finished` or `'config.lr<0.01'` ([filters.md](filters.md)). Quote `<`, `>` and
`!` for the shell.

**Keys** that no run has cause a warning that names the nearest one, and an error where nothing is left to show.

**JSON.** `mirror show RUN --json` is one object: `run` (its path), `fields` (the columns of `runs`, with `tags` as a
list), `config`, `summary`, `history` (`keys`, each with `key`, `rows`, `last_step`, `min`, `max`, `last`; and
`last_rows`), `files` (null if not mirrored) and `complete` (`history_rows`, `server_rows`, `last_step`, `error`,
`console_lines`, `system_metric_lines`, `last_success_at`). The other commands print one object per row, with the names
of the table as keys. Fields may be added, never changed. NaN and infinities are strings, times are UTC.

**Completion.** `mirror --install-completion` sets it up for bash, zsh or fish; `--show-completion` prints it. It
completes commands, options, projects, names of runs, and keys of config, summary and history, from the published
file.
"""


def help_of(*command: str) -> str:
    """The help text of a command, at a fixed width."""
    environ = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    done = subprocess.run([MIRROR, *command, "--help"], env=environ, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def commands() -> list[tuple[str, ...]]:
    """Every command in the order of the help, a group before its own commands."""
    import typer
    from typer.main import get_command

    from mirror.cli.app import COMMANDS

    found: list[tuple[str, ...]] = []
    for name, (module, target) in COMMANDS.items():
        found.append((name,))
        made = getattr(import_module(module), target)
        if isinstance(made, typer.Typer):
            found += [(name, inner) for inner in get_command(made).commands]  # type: ignore[attr-defined]
    return found


def reference() -> str:
    """The whole page."""
    parts = [HEAD, f"## mirror\n\n```text\n{help_of()}\n```\n"]
    parts += [f"## mirror {' '.join(name)}\n\n```text\n{help_of(*name)}\n```\n" for name in commands()]
    return "\n".join(parts)


def main() -> int:
    """Write the page, or with --check compare it."""
    path = DOCS / "cli.md"
    text = reference()
    if "--check" in sys.argv[1:]:
        if path.exists() and path.read_text() == text:
            return 0
        print(f"{path} is not what the commands say now; run `make format`", file=sys.stderr)
        return 1
    path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
