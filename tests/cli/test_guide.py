"""Help that can be read at a glance, and completion in the shells."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from mirror.cli import complete, main
from mirror.cli.app import COMMANDS, app
from mirror.cli.guide import EXAMPLES, PANELS
from mirror.cli.invocation import Invocation
from mirror.settings.home import Home


def test_every_command_stands_in_one_panel(cli: Any) -> None:
    """With its whole first sentence, at any width."""
    listed = [name for names in PANELS.values() for name in names]
    assert len(listed) == len(set(listed))
    assert set(COMMANDS) - set(listed) == set()
    shown = cli("--help").stdout
    assert [title for title in PANELS if f"\n{title}:\n" in shown] == list(PANELS)
    assert "..." not in shown.partition("\n\nOptions:\n")[2].partition("Examples:")[0].replace("[ARGS]...", "")
    words = " ".join(shown.split())
    assert "login Check an API key with the server and store it as `wandb login` does: in netrc, mode 0600." in words
    assert "history Print the complete history of runs: one row per step, one column per key." in words


def names_of_commands() -> list[str]:
    found = []
    for name in COMMANDS:
        command = get_command(app).get_command(None, name)  # type: ignore[attr-defined]
        found += [name, *(f"{name} {inner}" for inner in getattr(command, "commands", ()))]
    return found


@pytest.mark.parametrize("name", ["", *names_of_commands()])
def test_each_page_of_help_ends_with_two_examples(cli: Any, home: Home, name: str) -> None:
    """Which the command line accepts: every command and option in them exists."""
    last = cli(*name.split(), "--help").stdout.splitlines()[-3:]
    assert last == ["  Examples:", *(f"    {example}" for example in EXAMPLES[name])]
    for example in EXAMPLES[name]:
        for part in re.findall(r"\bmirror ((?:(?!&&|\)\").)+)", example):
            words = shlex.split(part.partition(" < ")[0].rstrip(')"') if '"$(' in example else part.partition(" < ")[0])
            root = get_command(app)
            command = root.get_command(None, words.pop(0))  # type: ignore[attr-defined]
            if words and words[0] in getattr(command, "commands", ()):
                command = command.commands[words.pop(0)]
            command.make_context("mirror", words, obj=Invocation(home, {})).close()


def offered(monkeypatch: pytest.MonkeyPatch, capsys: Any, line: str) -> list[str]:
    """What bash would offer at the end of this line."""
    words = line.split(" ")
    monkeypatch.setenv("_MIRROR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mirror ru", ["runs"]),
        ("mirror runs --ord", ["--order"]),
        ("mirror runs te", ["team/audio", "team/vision"]),
        ("mirror projects team/v", ["team/vision"]),
        ("mirror show ba", ["baseline"]),
        ("mirror show tw", []),
        ("mirror show cc", ["ccc"]),
        ("mirror show team/vision/d", ["team/vision/ddd", "team/vision/deep"]),
        ("mirror diff baseline de", ["deep"]),
        ("mirror runs team/vision config.l", ["config.layers", "config.lr"]),
        ("mirror runs team/audio config.l", ["config.lr"]),
        ("mirror runs team/vision state=f", ["state=finished", "state=failed"]),
        ("mirror query --where summary.val", ["summary.val/loss"]),
        ("mirror runs team/vision --select name,config.l", ["name,config.layers", "name,config.lr"]),
        ("mirror runs team/vision --order created_at,-summary.a", ["created_at,-summary.acc"]),
        ("mirror history baseline --keys loss,n", ["loss,note"]),
        ("mirror history song --keys ", ["wer"]),
        ("mirror plot baseline --x ", ["_step", "loss", "note"]),
        ("mirror plot --project team/vision --group-by config.o", ["config.optimizer.name"]),
        ("mirror status team/a", ["team/audio"]),
    ],
)
def test_commands_options_projects_runs_and_keys_are_completed(
    look: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, line: str, expected: list[str]
) -> None:
    """A name that several runs have is completed as their ids."""
    assert sorted(offered(monkeypatch, capsys, line)) == sorted(expected)


def test_what_cannot_be_completed_is_silent(cli: Any, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """No mirror, and a file that is none."""
    assert offered(monkeypatch, capsys, "mirror show a") == []
    home.data.mkdir(parents=True)
    home.published.write_text("nonsense")
    assert offered(monkeypatch, capsys, "mirror show a") == []
    assert offered(monkeypatch, capsys, "mirror ru") == ["runs"]


def test_nothing_that_a_shell_would_run_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of runs come from others."""
    bad = ["a$(reboot)", "a`b`", "a b", "a;b", "a'b", 'a"b', "a|b", "a\nb", "a>b"]
    monkeypatch.setattr(complete, "_ask", lambda *_: [("team", "vision", word, word, 1) for word in [*bad, "abc"]])
    assert complete.runs(None, "a") == ["abc"]


def test_completion_imports_as_little_as_it_can(looked: Home) -> None:
    """Neither the package around DuckDB nor rich: half of the time that a shell would wait."""
    code = (
        "import sys\nfrom mirror.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'duckdb', 'rich', 'pyarrow', 'httpx', 'numpy'} & set(sys.modules)))"
    )
    for shell, variables in {
        "bash": {"COMP_WORDS": "mirror show bas", "COMP_CWORD": "2"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "mirror show bas"},
        "fish": {"_TYPER_COMPLETE_ARGS": "mirror show bas", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }.items():
        environ = {"PATH": "", "MIRROR_HOME": str(looked.data), "_MIRROR_COMPLETE": f"complete_{shell}", **variables}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert (done.returncode, done.stderr) == (0, "")
        value, modules = done.stdout.splitlines()
        assert "baseline" in value
        assert modules == "[]"


def test_bash_completes_with_the_script_that_it_is_given(looked: Home, tmp_path: Path) -> None:
    """Of `mirror --show-completion`, which `--install-completion` installs."""
    script = """source <(mirror --show-completion)
        COMP_WORDS=(mirror history baseline --keys lo); COMP_CWORD=4
        _mirror_completion mirror
        printf '%s\\n' "${COMPREPLY[@]}"; complete -p mirror"""
    environ = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "MIRROR_HOME": str(looked.data),
    }
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "loss\ncomplete -o default -F _mirror_completion mirror\n"
