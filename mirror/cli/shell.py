"""`mirror shell`: a prompt for SQL over the newest published file, of DuckDB's own command line or of this command."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli.invocation import invocation
from mirror.cli.messages import fail, say
from mirror.cli.output import Output, write_result
from mirror.errors import MirrorError, UsageError, nothing_mirrored

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

    from mirror.settings.home import Home

_END = {"exit", "quit", ".exit", ".quit", "\\q"}
_HELP = """Write SQL and end it with a semicolon. Each statement reads the newest published file; none can change it.
SHOW TABLES lists the relations, DESCRIBE runs its columns, SUMMARIZE runs what they hold. Tab completes, Up repeats.
.quit or Ctrl-D ends the shell."""
_WORDS = (
    *("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "HAVING", "LIMIT", "JOIN", "LEFT JOIN", "ASOF JOIN", "USING"),
    *("WITH", "UNION ALL", "DISTINCT", "COUNT", "AVG", "MIN", "MAX", "ARG_MAX", "QUANTILE_CONT", "DESCRIBE"),
    *("SUMMARIZE", "SHOW TABLES", "EXPLAIN", "PIVOT", "CASE", "WHEN", "THEN", "ELSE", "END", "IS NOT NULL"),
)


def shell(
    ctx: typer.Context,
    builtin: Annotated[bool, typer.Option("--builtin", help="Do not use the DuckDB CLI, even if installed.")] = False,
) -> None:
    """Open a prompt for SQL over the mirror, read-only.

    It is the DuckDB CLI (`duckdb`) where that is installed, else a small prompt with history and completion. The DuckDB
    CLI keeps showing the file that it opened; the prompt of this command reads the newest one for every statement.
    """
    home = invocation(ctx).home
    if not home.published.exists():
        raise nothing_mirrored(home.published)
    program = None if builtin else shutil.which("duckdb")
    if program is not None:
        sys.stdout.flush()
        os.execv(program, [program, "-readonly", str(home.published)])  # noqa: S606
    if not _on_terminal():
        raise UsageError("the prompt needs a terminal; `mirror query -` reads a statement from a pipe")
    say(f"{home.published}, read-only; .help helps, .quit ends")
    _converse(home, _session(home))


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _converse(home: Home, session: PromptSession[str]) -> None:
    """Answer statements until the user ends the shell. An error of a statement does not end it."""
    while True:
        try:
            text = session.prompt().strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if text.rstrip(";").strip().lower() in _END:
            return
        if text in (".help", "help", "help;"):
            say(_HELP)
        elif text:
            try:
                _answer(home, text)
            except (MirrorError, KeyboardInterrupt) as error:
                fail(error)


def _answer(home: Home, text: str) -> None:
    from dataclasses import replace

    from mirror.query import sql
    from mirror.snapshot.connection import connected

    output = Output("table")
    # Opened for each statement: a file that was published since then is another one.
    with connected(home) as connection:
        result = sql.select(connection, text)
        write_result(replace(result, limit=output.limit(None)), output)


def _session(home: Home) -> PromptSession[str]:
    """A prompt whose history is kept in the home, readable by its owner only."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import FuzzyCompleter, WordCompleter
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings

    history: History = InMemoryHistory()
    if os.access(home.data, os.W_OK):
        file = home.data / "shell_history"
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        history = FileHistory(str(file))
    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: Any) -> None:
        """End the statement after a semicolon and after a command; else begin a new line."""
        text = event.current_buffer.text.strip()
        if not text or text.endswith(";") or text.lower() in {*_END, ".help", "help"}:
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.insert_text("\n")

    words = WordCompleter(lambda: _words(home), ignore_case=True)
    return PromptSession(
        "mirror> ",
        multiline=True,
        prompt_continuation="   ...> ",
        history=history,
        completer=FuzzyCompleter(words),
        complete_while_typing=False,
        key_bindings=keys,
    )


def _words(home: Home) -> list[str]:
    """Words of SQL, and the names of relations and columns of the newest file."""
    from mirror.snapshot.connection import connected
    from mirror.store.names import identifier

    try:
        with connected(home) as connection:
            names = connection.execute(
                "SELECT DISTINCT unnest([table_name, column_name]) FROM duckdb_columns() WHERE schema_name = 'main'"
            ).fetchall()
    except MirrorError:
        return list(_WORDS)
    return [*_WORDS, *sorted(name if name.isidentifier() else identifier(name) for (name,) in names)]
