"""`mirror skill`: teaches coding agents to use the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mirror.cli.messages import say
from mirror.cli.output import write_text

skill = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Teach coding agents to use the mirror."
)


@skill.callback()
def _group() -> None:
    """Teach coding agents to use the mirror."""


@skill.command()
def install(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The agent's folder of skills.", show_default=True)
    ] = Path(".claude/skills"),
    print_: Annotated[bool, typer.Option("--print", help="Only print the file.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that was edited.")] = False,
) -> None:
    """Write a skill for coding agents: one short Markdown file, DIR/wandb-mirror/SKILL.md.

    It teaches the commands, the relations for SQL and the pitfalls. Install it again after an update of the program.
    """
    from mirror.mcp import skill as skills

    if print_:
        write_text(skills.text())
        return
    say(f"wrote {skills.install(folder, force=force)}")
