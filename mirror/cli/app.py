"""The command line: global options and the list of commands. Each command's module is imported only when it is used."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from mirror.cli import messages, unneeded
from mirror.cli.guide import PANELS, Panels, epilog
from mirror.cli.invocation import Invocation
from mirror.errors import QueryError
from mirror.settings.home import Home

# Every command: its module, and the name of its function or typer.Typer.
COMMANDS = {
    "init": ("mirror.cli.setup", "init"),
    "login": ("mirror.cli.setup", "login"),
    "sync": ("mirror.cli.sync", "sync"),
    "flush": ("mirror.cli.sync", "flush"),
    "forget": ("mirror.cli.forget", "forget"),
    "ingest": ("mirror.cli.ingest", "ingest"),
    "daemon": ("mirror.cli.daemon", "daemon"),
    "service": ("mirror.cli.service", "service"),
    "projects": ("mirror.cli.look", "projects"),
    "runs": ("mirror.cli.look", "runs"),
    "show": ("mirror.cli.show", "show"),
    "keys": ("mirror.cli.look", "keys"),
    "diff": ("mirror.cli.look", "diff"),
    "shell": ("mirror.cli.shell", "shell"),
    "query": ("mirror.cli.query", "query"),
    "history": ("mirror.cli.history", "history"),
    "table": ("mirror.cli.table", "table"),
    "logged-table": ("mirror.cli.logged_table", "logged_table"),
    "export": ("mirror.cli.export", "export"),
    "plot": ("mirror.cli.plot", "plot"),
    "report": ("mirror.cli.report", "report"),
    "mcp": ("mirror.cli.mcp", "mcp"),
    "skill": ("mirror.cli.skill", "skill"),
    "update": ("mirror.cli.update", "update"),
    "status": ("mirror.cli.status", "status"),
    "log": ("mirror.cli.log", "log"),
    "doctor": ("mirror.cli.doctor", "doctor"),
    "verify": ("mirror.cli.verify", "verify"),
    "backup": ("mirror.cli.backup", "backup"),
    "restore": ("mirror.cli.backup", "restore"),
    "gc": ("mirror.cli.gc", "gc"),
    "storage": ("mirror.cli.storage", "storage"),
    "open": ("mirror.cli.open", "open_page"),
    "env": ("mirror.cli.env", "env"),
    "token": ("mirror.cli.token", "token"),
    "demo": ("mirror.cli.demo", "demo"),
}

# Commands that end at once, or hold little memory outside DuckDB. Imports and documents create many objects, and
# scanning them repeatedly for garbage is a tenth of the time of such a command. A page of records has about 80,000.
_BRIEF = {
    *("projects", "runs", "show", "keys", "diff", "query", "history", "table", "status", "log", "env", "open"),
    *("logged-table", "storage", "sync", "flush"),
}
_COLLECT_AFTER = 200_000

# The base class of all command line errors, in versions of typer with and without a bundled click.
_CommandLineError: type[Any] = typer.BadParameter.__mro__[2]


class SqlCommand(TyperCommand):
    """Takes SQL that begins with a comment for SQL, not for an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; white space before a comment changes nothing in SQL."""
        return super().parse_args(ctx, [f" {text}" if _is_comment(text) else text for text in args])


def _is_comment(text: str) -> bool:
    """Return True for `-- ...` and for a first line that begins with `--` and is no option with a value."""
    return text.startswith("--") and (text[2:3].isspace() or "\n" in text.partition("=")[0])


class Commands(Panels):
    """Imports a command only when it is used."""

    panels = PANELS

    def invoke(self, ctx: Any) -> Any:
        """Run the command. An error about an unknown project also names the nearest one of the config."""
        try:
            return super().invoke(ctx)
        except QueryError as error:
            from mirror.settings.settings import configured_projects
            from mirror.snapshot.paths import UnknownProject

            if isinstance(error, UnknownProject) and isinstance(ctx.obj, Invocation):
                raise error.with_configured(configured_projects(ctx.obj.home, ctx.obj.environ)) from error
            raise

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return every name."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Build one command; None if there is no command with this name."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in ("plot", "report"):
            # Matplotlib draws pictures with it.
            unneeded.allow("numpy")
        if cmd_name in _BRIEF:
            gc.set_threshold(_COLLECT_AFTER)
        module, name = COMMANDS[cmd_name]
        target = getattr(import_module(module), name)
        # `main` turned it off: what is imported stays.
        gc.enable()
        if isinstance(target, typer.Typer):
            group = _named(get_command(target), cmd_name)
            for name_, command in getattr(group, "commands", {}).items():
                command.epilog = epilog(f"{cmd_name} {name_}")
            return group
        single = _typer()
        single.command(cmd_name, cls=SqlCommand if cmd_name == "query" else None)(target)
        return _named(get_command(single), cmd_name)


def _named(command: Any, name: str) -> Any:
    command.name = name
    command.epilog = epilog(name)
    return command


def _typer(*, completion: bool = False, **options: Any) -> typer.Typer:
    return typer.Typer(add_completion=completion, rich_markup_mode=None, pretty_exceptions_enable=False, **options)


app = _typer(cls=Commands, completion=True, epilog=epilog(""), context_settings={"help_option_names": ["-h", "--help"]})


def _version(requested: bool) -> None:
    if requested:
        from mirror.version import VERSION

        typer.echo(f"wandb-mirror {VERSION}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Another config file; overrides MIRROR_CONFIG.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print only warnings and errors.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print more, with tracebacks.")] = False,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Keep a local mirror of Weights & Biases projects in DuckDB, and query it.

    The mirror is stored in MIRROR_HOME. Data goes to stdout, everything else to stderr. Exit codes: 0 done;
    1 failed; 2 usage or config; 3 network or authentication; 4 timed out or too old; 130 interrupted.
    """
    messages.configure(quiet=quiet, verbose=verbose)
    messages.show_logged_warnings()
    environ = dict(os.environ)
    if config is not None:
        environ["MIRROR_CONFIG"] = str(config)
    ctx.obj = Invocation(home=Home.find(environ), environ=environ)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run the command line. Every error becomes one line on stderr and an exit code."""
    messages.configure()
    command = get_command(app)
    try:
        result = command.main(list(arguments), prog_name="mirror", standalone_mode=False)
        sys.stdout.flush()
    except typer.Exit as end:
        return int(end.exit_code)
    except typer.Abort:
        return int(messages.fail(KeyboardInterrupt()))
    except _CommandLineError as error:
        ctx = getattr(error, "ctx", None)
        hint = f"; see `{ctx.command_path} --help`" if ctx is not None else ""
        return int(messages.usage_error(f"{error.format_message().rstrip('.')}{hint}"))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
        code = int(messages.fail(error))
        _discard_stdout()
        return code
    # Newer versions of typer turn Ctrl-C into a plain exit code, without a message.
    return int(messages.fail(KeyboardInterrupt())) if result == messages.ExitCode.INTERRUPTED else int(result or 0)


def _discard_stdout() -> None:
    """Drop output that could not be written, or the interpreter tries again at exit and prints its own message."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.close(devnull)
