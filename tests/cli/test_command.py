from __future__ import annotations

import contextlib
import errno
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mirror.cli.app import COMMANDS
from mirror.settings.home import Home

HEAVY = [
    "duckdb",
    "_duckdb",
    "httpx",
    "aiohttp",
    "rich",
    "pyarrow",
    "starlette",
    "apscheduler",
    "graphql",
    "pandas",
    "orjson",
]


def imported(*code: str) -> list[str]:
    """Which heavy modules a fresh process has imported at the end."""
    text = "\n".join(["import sys", *code, f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"])
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    found: list[str] = eval(done.stderr)
    return found


def test_libraries_load_nothing_that_no_command_needs():
    """PyArrow imports pandas and numpy where they are installed, and httpx its own command line: 0.3 s a start."""
    code = """
from mirror.cli import unneeded
unneeded.keep_out()
import httpx, pyarrow, sys
assert pyarrow.array([1, None, 2.5]).to_pylist() == [1, None, 2.5]
print(*(name for name in ("numpy", "pandas", "httpx._main", "rich", "pygments") if name in sys.modules))
unneeded.allow("numpy")
import numpy
print(numpy.ones(2).sum())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "2.0"]


@pytest.fixture
def tiny(home: Home) -> Home:
    """A published file that holds nothing but a table of numbers."""
    home.data.mkdir()
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{home.published}' AS made (STORAGE_VERSION 'v1.4.0')")
        connection.execute("CREATE TABLE made.numbers AS SELECT range AS n FROM range(5000)")
    home.published.chmod(0o444)
    return home


class Terminal:
    """Runs the command with a terminal for stdout; stderr stays a pipe."""

    def __call__(self, *arguments: str, columns: int = 80, **environ: str) -> tuple[int, str, str]:
        ours, theirs = pty.openpty()
        modes = termios.tcgetattr(theirs)
        modes[1] &= ~termios.OPOST  # else the terminal turns every line feed into two characters
        termios.tcsetattr(theirs, termios.TCSANOW, modes)
        process = subprocess.Popen(
            [sys.executable, "-m", "mirror.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env={**os.environ, "COLUMNS": str(columns), **environ},
        )
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.close(ours)
        assert process.stderr is not None
        errors = process.stderr.read().decode()
        return process.wait(), shown.decode(), errors


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def test_help_imports_nothing_heavy(home: Home) -> None:
    """`mirror --help` and `import mirror` answer at once."""
    assert imported("import mirror") == []
    assert imported("from mirror.cli import main", "assert main(['--help']) == 0") == []
    assert imported("from mirror.cli import main", "assert main(['query', '--help']) == 0") == []


def test_a_query_imports_duckdb_alone(tiny: Home) -> None:
    """Nothing else that takes its time."""
    answer = ["from mirror.cli import main", "assert main(['query', 'select count(*) from numbers']) == 0"]
    assert imported(*answer) == ["duckdb", "_duckdb"]


def test_every_command_and_every_option_has_help(cli: Any) -> None:
    """The first lines of each say what it does."""
    listed = cli("--help")
    assert (listed.exit_code, listed.stderr) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in listed.stdout
        shown = cli(name, "--help")
        assert (shown.exit_code, shown.stderr) == (0, "")
        lines = shown.stdout.splitlines()
        assert lines[0].startswith(f"Usage: mirror {name} ")
        assert len(lines[2].strip()) > 10
        options = [line for line in lines if line.startswith("  -")]
        assert options
        assert all(len(line.split("  ")) > 2 or len(line) > 20 for line in options)


def test_without_a_command_the_help_is_shown(cli: Any) -> None:
    """The same page."""
    assert cli().stdout == cli("--help").stdout


def test_the_version_is_that_of_the_distribution(command: Any) -> None:
    """One line."""
    from mirror.version import VERSION

    assert command("--version").stdout == f"wandb-mirror {VERSION}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qurey"], "error: No such command 'qurey'"),
        (["--nope"], "error: No such option: --nope"),
        (["query", "--format"], "error: Option '--format' requires an argument"),
        (["query", "a", "b"], "error: Got unexpected extra argument"),
    ],
)
def test_a_command_line_that_cannot_be_is_one_line(cli: Any, arguments: list[str], message: str) -> None:
    """Exit code 2, and where the help is."""
    outcome = cli(*arguments)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr.count("\n")) == (2, "", 1)
    assert outcome.stderr.startswith(message)


@pytest.mark.parametrize(("name", "sign"), [("what?", "`?`"), ("a\\b", "`\\`"), ("a\\b?", "`?` and `\\`")])
def test_a_home_that_duckdb_cannot_open_is_refused_by_every_command(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sign: str
) -> None:
    home = tmp_path / name
    monkeypatch.setenv("MIRROR_HOME", str(home))
    message = f"error: the home {home} has {sign} in its path, which DuckDB cannot open; set MIRROR_HOME\n"
    for command in (["sync", "team/p"], ["query", "select 1"], ["status"], ["doctor"], ["daemon"]):
        done = cli(*command)
        assert (done.exit_code, done.stderr, done.stdout) == (2, message, "")
    assert not home.exists()


def test_what_nobody_expected_is_one_line_too(cli: Any, monkeypatch: pytest.MonkeyPatch, tiny: Home) -> None:
    """With -v the place is shown."""

    def fails(*_: object) -> None:
        raise LookupError("over\nhere")

    monkeypatch.setattr("mirror.query.sql.select", fails)
    outcome = cli("query", "select 1")
    assert (outcome.exit_code, outcome.stderr) == (
        1,
        "error: unexpected LookupError: over here (`mirror -v` shows where)\n",
    )
    verbose = cli("-v", "query", "select 1").stderr.splitlines()
    assert verbose[0] == "Traceback (most recent call last):"
    assert verbose[-1] == "error: unexpected LookupError: over here"


def test_a_file_that_cannot_be_used_is_named(cli: Any, monkeypatch: pytest.MonkeyPatch, tiny: Home) -> None:
    def forbidden(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", forbidden)
    outcome = cli("query", "select 1")
    reported = f"error: {tiny.published}: Permission denied; check who owns it (`mirror -v` shows where)\n"
    assert (outcome.exit_code, outcome.stderr) == (1, reported)


def test_a_pipe_that_is_closed_ends_the_command_quietly(tiny: Home) -> None:
    """`mirror query ... | head -1`."""
    line = f"{sys.executable} -m mirror.cli query 'select n, repeat(chr(65), 100) as text from numbers' | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "n\ttext\n", "")


def test_a_full_disk_is_named(tiny: Home) -> None:
    """Also where stdout is the disk."""
    line = f"{sys.executable} -m mirror.cli query 'select * from numbers' > /dev/full"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: cannot write to stdout: No space left on device\n")


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has this file open."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            if descriptor.readlink() == path:
                return True
    return False


def test_ctrl_c_ends_a_query_with_130(tiny: Home) -> None:
    """At once, with one line."""
    slow = "select sum(hash(a.n + b.n * c.n)) from numbers a, numbers b, numbers c"
    process = subprocess.Popen(
        [sys.executable, "-m", "mirror.cli", "query", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while not has_open(process.pid, tiny.published):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    # Python may end by the signal itself, which a shell shows as 130, too.
    assert process.returncode in (130, -signal.SIGINT)
    assert (shown, errors) == ("", "interrupted\n")


def test_ctrl_c_within_a_statement_of_duckdb_is_one_line_too() -> None:
    """DuckDB makes a RuntimeError of it, which knows nothing of the KeyboardInterrupt.

    With one thread: DuckDB looks for signals only while the thread that asked has a part in the work.
    """
    code = """
import os, signal, sys, threading, duckdb
from mirror.cli import messages
try:
    duckdb.execute("set threads = 1").fetchall()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    duckdb.execute("select sum(hash(a.range + b.range)) from range(1000000) a, range(1000000) b")
except BaseException as error:
    sys.exit(messages.fail(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_while_modules_are_imported_is_one_line_too(tiny: Home) -> None:
    """Also if the library that is imported makes an error of its own of it."""
    for raised in (
        "raise KeyboardInterrupt",
        "try:\n raise KeyboardInterrupt\nexcept BaseException:\n raise ImportError",
    ):
        code = f"""
import sys
class Finder:
    def find_spec(self, name, *_):
        if name == "mirror.cli.query":
            exec({raised!r})
sys.meta_path.insert(0, Finder())
from mirror.cli import main
sys.exit(main(["query", "select 1"]))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_on_a_terminal_a_table_of_a_hundred_rows_is_shown(tiny: Home, terminal: Terminal) -> None:
    """And how many there are."""
    code, shown, errors = terminal("query", "select * from numbers")
    assert (code, shown.splitlines()[:3], shown.count("\n")) == (0, [" n", "──", " 0"], 102)
    assert errors == "100 of 5,000 rows; --limit N shows more, -o FILE keeps them all\n"
    code, shown, errors = terminal("query", "select * from numbers", "--limit", "200")
    assert (shown.count("\n"), errors) == (202, "200 of 5,000 rows; --limit N shows more, -o FILE keeps them all\n")
    assert terminal("query", "select * from numbers", "--csv")[1].count("\n") == 5001


def test_a_table_fits_the_terminal(tiny: Home, terminal: Terminal) -> None:
    """What does not fit is named on stderr."""
    wide = "select " + ", ".join(f"repeat('x', 30) as column_{n:02}" for n in range(12))
    code, shown, errors = terminal("query", wide, columns=60)
    assert (code, max(map(len, shown.splitlines()))) == (0, 60)
    assert errors == (
        "warning: 8 columns do not fit: column_04, column_05, column_06, column_07, column_08, column_09, column_10, "
        "column_11; choose some, or use --format json or -o FILE\n"
    )


def test_binary_data_stays_off_the_terminal(tiny: Home, terminal: Terminal) -> None:
    """With the way out."""
    assert terminal("query", "select 1", "--format", "parquet") == (
        2,
        "",
        "error: parquet is binary and cannot be printed: add -o FILE.parquet, or pipe it\n",
    )


def test_colour_is_for_terminals_that_want_it(home: Home) -> None:
    """NO_COLOR and pipes get plain text."""
    ours, theirs = pty.openpty()
    shown = []
    for environ in ({}, {"NO_COLOR": "1"}, {"TERM": "dumb"}):
        process = subprocess.Popen(
            [sys.executable, "-m", "mirror.cli", "nope"],
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", **environ},
        )
        process.wait()
        shown.append(os.read(ours, 4096).decode())
    os.close(theirs)
    os.close(ours)
    plain = "error: No such command 'nope'"
    assert shown[0].startswith("\x1b[31merror:\x1b[0m No such command 'nope'")
    assert [text.startswith(plain) for text in shown[1:]] == [True, True]


def test_another_config_can_be_named(cli: Any, home: Home, tmp_path: Path) -> None:
    """--config wins over MIRROR_CONFIG, and must exist."""
    assert cli("--config", str(tmp_path / "a.toml"), "init", "team/vision").exit_code == 0
    assert (tmp_path / "a.toml").exists()
    assert not home.config.exists()
    missing = cli("--config", str(tmp_path / "b.toml"), "login", "x" * 40)
    assert (missing.exit_code, missing.stderr) == (
        2,
        f"error: {tmp_path / 'b.toml'} does not exist: run `mirror init` to write it\n",
    )
