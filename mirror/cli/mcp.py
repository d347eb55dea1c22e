"""`mirror mcp`: the mirror as a server for agents, and single answers of its tools."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any

import typer

from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say
from mirror.cli.output import write_text
from mirror.errors import MirrorError, MissingPackage, UsageError


def mcp(
    ctx: typer.Context,
    tool: Annotated[
        str | None, typer.Argument(metavar="[TOOL]", show_default=False, help="Print one answer of this tool.")
    ] = None,
    arguments: Annotated[
        str | None,
        typer.Argument(metavar="[JSON]", show_default=False, help="Its arguments, as a JSON object."),
    ] = None,
    tools: Annotated[bool, typer.Option("--tools", help="Print the tools with their arguments, as JSON.")] = False,
) -> None:
    """Serve the mirror to agents, by the Model Context Protocol on stdin and stdout.

    Hosts such as Claude Code start this command themselves (docs/mcp.md). With TOOL it prints one answer and ends.
    """
    given = invocation(ctx)
    if tools:
        _print_tools()
    elif tool is not None:
        _print_answer(given, tool, arguments)
    else:
        _serve(given)


def _print_tools() -> None:
    import json

    from mirror.mcp.tools import TOOLS

    listed = [{"name": name, "description": one.purpose, "inputSchema": one.schema()} for name, one in TOOLS.items()]
    write_text(json.dumps(listed, ensure_ascii=False, indent=1) + "\n")


def _print_answer(given: Invocation, tool: str, arguments: str | None) -> None:
    from mirror.mcp import tools
    from mirror.snapshot.connection import connected

    asked = _object(arguments)
    with connected(given.home) as connection:
        try:
            text = tools.answer(connection, tool, asked, given.entity)
        except MirrorError as error:
            said = tools.in_words_of_tools(str(error))
            if said == str(error):
                raise
            raise UsageError(said) from error
    write_text(text + "\n")


def _object(arguments: str | None) -> dict[str, Any]:
    import json

    if arguments is None:
        return {}
    try:
        asked = json.loads(arguments)
    except ValueError as error:
        raise UsageError(
            f'the arguments are not JSON ({error}); write them as in \'{{"project": "team/vision"}}\''
        ) from error
    if not isinstance(asked, dict):
        raise UsageError('the arguments must be a JSON object, as in \'{"project": "team/vision"}\'')
    return asked


def _serve(given: Invocation) -> None:
    from mirror.cli import ending

    try:
        import mcp as _  # noqa: F401
    except ImportError:
        raise MissingPackage("mcp is not installed: `pip install 'wandb-mirror[mcp]'`") from None
    from mirror.mcp.asking import Asking
    from mirror.mcp.server import over_stdio
    from mirror.web.statements import Statements

    if sys.stdin.isatty():
        say("waiting for an MCP client on stdin; Ctrl-C ends it, `mirror mcp --tools` lists the tools")
    # A thread waits in a read of stdin, which an exception cannot end. The workers end with this process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    statements = Statements(given.home)
    statements.warm()
    try:
        ending.run(over_stdio(Asking(statements, given.entity)))
    finally:
        statements.close()
