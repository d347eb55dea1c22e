"""`mirror shell`: the DuckDB CLI where it is installed, else a prompt of our own."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from mirror.cli import shell
from mirror.settings.home import Home


def test_the_duckdb_cli_is_used_where_it_is_installed(look: Any, looked: Home, command: Any, tmp_path: Path) -> None:
    """Read-only, on the published file."""
    program = tmp_path / "bin" / "duckdb"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\n")
    program.chmod(0o700)
    done = command("shell", environ={"PATH": f"{program.parent}:{os.environ['PATH']}"})
    assert (done.exit_code, done.stdout) == (0, f"{['-readonly', str(looked.published)]}\n")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    """What is typed at a terminal."""
    monkeypatch.setattr(shell, "_on_terminal", lambda: True)
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        yield keyboard


def test_statements_are_answered_until_the_shell_is_left(look: Any, looked: Home, typed: PipeInput) -> None:
    """Over several lines; an error does not end it, and nothing can be changed."""
    typed.send_text("select run_id\rfrom runs where name = 'deep'\rand deleted_at is null;\r")
    typed.send_text("select nonsense from runs;\rdrop table runs;\r\r.help\rdescribe config_values;\r.quit\r")
    outcome = look("shell", "--builtin")
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines()[:3] == ["run_id", "──────", "bbb"]
    assert "entity" in outcome.stdout.splitlines()[5]
    said = outcome.stderr.splitlines()
    assert said[0] == f"{looked.published}, read-only; .help helps, .quit ends"
    assert said[1].startswith('error: Binder Error: Referenced column "nonsense" not found')
    assert said[2].startswith("error: DROP is refused, the mirror is read-only: use SELECT, ")
    assert said[3].startswith("Write SQL and end it with a semicolon.")
    history = looked.data / "shell_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "describe config_values;" in history.read_text()


def test_ctrl_c_clears_the_line_and_ctrl_d_ends(look: Any, typed: PipeInput) -> None:
    """As in every shell."""
    typed.send_text("select 1\x03select 2 as two;\r\x04")
    outcome = look("shell", "--builtin")
    assert (outcome.exit_code, outcome.stdout.split()) == (0, ["two", "───", "2"])


def test_relations_and_columns_are_completed(looked: Home) -> None:
    """Quoted where SQL needs it."""
    words = shell._words(looked)
    assert {"SELECT", "history_keys", "run_id", '"team/vision"', '"config.lr"'} <= set(words)
