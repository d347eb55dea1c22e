"""`mirror token`: tokens with which other programs and machines read the mirror through the daemon's port."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from mirror.cli import complete
from mirror.cli.guide import Panels
from mirror.cli.invocation import invocation
from mirror.cli.messages import say
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, choose, write_result

token = typer.Typer(
    cls=Panels,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Manage tokens for readers of the mirror: the query API, MCP and scripts for the official SDK.",
)

COLUMNS = ("name", "state", "projects", "created_at", "expires_at", "revoked_at", "last_used_at")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is, or what for.", show_default=False)]


@token.command()
def add(
    context: typer.Context,
    name: Name,
    project: Annotated[
        list[str] | None,
        typer.Option(
            "--project",
            metavar="E/P",
            help="Only this project, or E/*. Repeatable. Default: all.",
            autocompletion=complete.projects,
        ),
    ] = None,
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=36500, metavar="N", help="Valid for N days. Default: no end.")
    ] = None,
) -> None:
    """Add a token and print it, this one time: only its hash is stored.

    It reads the mirror and changes nothing. A running daemon accepts it at once.
    """
    from mirror.settings.settings import project_patterns
    from mirror.settings.tokens import Tokens

    given = invocation(context)
    patterns = project_patterns(project or [], given.environ.get("WANDB_ENTITY") or None)
    secret = Tokens(given.home.tokens).add(name, patterns, days)
    typer.echo(secret)
    say(f"the token {name} reads {', '.join(patterns) or 'every project'}; it is not shown again")


@token.command("list")
def list_(
    context: typer.Context,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """List the tokens: what each may read, until when, and when it was last used (to 10 minutes)."""
    from mirror.settings.tokens import Tokens
    from mirror.snapshot.result import Rows

    output = choose(format_name, json=json, csv=csv, file=file)
    now = datetime.now(UTC)
    rows = [
        (
            one.name,
            one.state(now),
            ",".join(one.projects) or None,
            *(
                at and f"{at:%Y-%m-%dT%H:%M:%SZ}"
                for at in (one.created_at, one.expires_at, one.revoked_at, one.last_used_at)
            ),
        )
        for one in Tokens(invocation(context).home.tokens).every()
    ]
    write_result(Rows(list(COLUMNS), rows), output)


@token.command()
def revoke(context: typer.Context, name: Name) -> None:
    """Revoke a token. A running daemon refuses it from the next request on."""
    from mirror.settings.tokens import Tokens

    Tokens(invocation(context).home.tokens).revoke(name)
    say(f"the token {name} is revoked")
