"""What every test may use: a mirror's own empty home, and the `mirror` command in and out of process."""

from __future__ import annotations

import gc
import io
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.main import get_command

from mirror.settings.home import Home
from mirror.settings.settings import PublishSettings
from mirror.store.store import Store
from tests import empty


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that share what is dear to make stay together on one worker, and such long pieces come first."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
    if getattr(config.option, "loadgroup", False) and items and items[0].get_closest_marker("xdist_group"):
        # It tells the groups by names of tests; where it does not, all of it takes twice the time and nothing says so.
        assert "@" in items[0].nodeid, "this pytest-xdist does not keep groups together with this pytest"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Another way to run the tests."""
    parser.addoption("--all-threads", action="store_true", help="DuckDB has as many threads in tests as for users")


def pytest_collection_finish() -> None:
    """What is imported by now stays, and tests leave little garbage: the collector need not go through it all the time."""
    gc.freeze()
    gc.set_threshold(1_000_000)


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_each_database(pytestconfig: pytest.Config):
    """The workers need all processors, and waking a second thread for each small statement is a tenth of its CPU time.

    `make test-oldest` runs with all threads, as do all daemons and commands that tests start as processes.
    """
    connect = duckdb.connect

    def connected(*place: Any, config: Mapping[str, Any] | None = None, **options: Any) -> duckdb.DuckDBPyConnection:
        return connect(*place, config={"threads": 1, **(config or {})}, **options)

    with pytest.MonkeyPatch.context() as patch:
        if not pytestconfig.getoption("all_threads"):
            patch.setattr(duckdb, "connect", connected)
        yield


@pytest.fixture(scope="session", autouse=True)
def certificates_are_read_once():
    """Each client of httpx reads the certificates of all authorities again: 20 ms, even for servers that speak plain HTTP."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def commands_are_built_once():
    """Typer builds a command from its function's signature each time it runs, which takes 10 ms; here each is built once."""
    from mirror.cli import app

    build, built = app.Commands.get_command, {}

    def command(self, ctx, cmd_name):
        if cmd_name not in built:
            built[cmd_name] = build(self, ctx, cmd_name)
        return built[cmd_name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.Commands, "get_command", command)
        patch.setattr(app, "app", app.get_command(app.app))
        patch.setattr(app, "get_command", lambda made: made if made is app.app else get_command(made))
        yield


@pytest.fixture(scope="session", autouse=True)
def empty_mirrors():
    """Stores of this process begin with a copy of an empty mirror, unless a test asks for `first_opening`."""

    def opened(home: Home, **options: Any) -> Store:
        if options.get("storage_version", PublishSettings.storage_version) == PublishSettings.storage_version:
            empty.put(home)
        return empty.make(home, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "open", opened)
        yield


@pytest.fixture
def first_opening(monkeypatch):
    """The store makes the first files of a home itself, as it does for users."""
    monkeypatch.setattr(Store, "open", empty.make)


@dataclass(frozen=True)
class Outcome:
    """What one run of the command did."""

    exit_code: int
    data: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        return self.data.decode()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home in an environment that knows no account, no config and no other mirror."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MIRROR_", "XDG_")) or name in ("NETRC", "NO_COLOR"):
            monkeypatch.delenv(name)
    user = tmp_path / "user"
    user.mkdir()
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("MIRROR_HOME", str(tmp_path / "mirror"))
    return Home.find(os.environ)


class InProcess:
    """Runs the command in this process, with streams of its own."""

    def __call__(self, *arguments: str, stdin: str = "") -> Outcome:
        from mirror.cli import main

        data, errors = io.BytesIO(), io.StringIO()
        out = io.TextIOWrapper(data, encoding="utf-8")
        kept = sys.stdin, sys.stdout, sys.stderr
        sys.stdin, sys.stdout, sys.stderr = io.StringIO(stdin), out, errors
        try:
            code = main(arguments)
            sys.stdout.flush()
        finally:
            sys.stdin, sys.stdout, sys.stderr = kept
            out.detach()  # else the wrapper closes what it wrote to
        return Outcome(code, data.getvalue(), errors.getvalue())


@pytest.fixture
def cli(home: Home) -> InProcess:
    """The command in this process: `cli("query", "select 1")`."""
    return InProcess()


class OutOfProcess:
    """Runs the command as its own process."""

    def __call__(
        self, *arguments: str, stdin: str = "", environ: Mapping[str, str] | None = None, timeout: float = 60
    ) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "mirror.cli", *arguments],
            input=stdin.encode(),
            capture_output=True,
            env={**os.environ, **(environ or {})},
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode())


@pytest.fixture
def command(home: Home) -> OutOfProcess:
    """The command as its own process."""
    return OutOfProcess()
