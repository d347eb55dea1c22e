from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from mirror.control import Control
from mirror.sandbox import Sandbox, World
from mirror.settings.home import Home
from mirror.snapshot.connection import version_of
from tests import empty
from tests.conftest import InProcess
from tests.forked import Forked
from tests.reading import rows

CONFIG = """projects = {projects}
[sync]
interval = "{interval}"
live_interval = "300ms"
[publish]
min_interval = "200ms"
[http]
listen = "{listen}"
"""


class Bench:
    """A home in a short path (a socket's path is limited), a sample server, and the command as a user runs it."""

    def __init__(self, root: Path, server: Sandbox) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir()
        self.server = server
        self.world: World = server.world
        self._read: tuple[object, list[tuple[object, ...]]] = (None, [])
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "MIRROR_HOME": str(self.home),
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": server.key,
            "NO_COLOR": "1",
        }

    def configure(self, projects='["team/p"]', interval="1s", text=None, listen=""):
        """Write the config as an editor does: a new file, moved over the old one."""
        fresh = self.home / "config.toml.new"
        fresh.write_text(text or CONFIG.format(projects=projects, interval=interval, listen=listen))
        fresh.replace(self.home / "config.toml")

    def mirror(self, *arguments, check=True, **environ):
        """The command, and what it left; in this process, which saves the time of starting one.

        A daemon is a process of its own, and so is what another thread calls: the environment and the streams belong
        to the whole process.
        """
        if threading.current_thread() is threading.main_thread() and arguments != ("daemon",):
            here = self.here(*arguments, **environ)
            done = subprocess.CompletedProcess(arguments, here.exit_code, here.stdout, here.stderr)
        else:
            done = subprocess.run(
                [sys.executable, "-m", "mirror.cli", *arguments],
                env={**self.environ, **environ},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        assert not check or done.returncode == 0, done.stderr
        return done

    def sql(self, query):
        """What the query returns over the published file; read once for each file that is published."""
        published = self.home / "mirror.duckdb"
        asked = (version_of(published), query) if published.exists() else None
        if asked is None or self._read[0] != asked:
            self._read = (asked, rows(published, query))
        return self._read[1]

    def pull(self):
        """A pass of the daemon over everything, now; what it says."""
        return list(Control(self.home / "mirror.sock").work("sync", []))

    def here(self, *arguments, **environ):
        """The command in this process, which saves the time of starting one."""
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ:
                patch.delenv(name)
            for name, value in {**self.environ, **environ}.items():
                patch.setenv(name, value)
            return InProcess()(*arguments)

    def log(self):
        """The lines of the log file."""
        path = self.home / "mirror.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @contextmanager
    def daemon(self, prelude="", stderr=None, *, verbose=False, ends_with=0, **environ):
        """A running daemon, asked to stop at the end; it must end by itself, with exit code 0 or another one.

        `prelude` is Python that the process runs before it, to bring about what does not happen by itself. What it
        writes to stderr goes to a file if nowhere else: a pipe that nobody reads would hold it up once it is full. With
        `verbose` its log also has the passes that found nothing new.
        """
        empty.put(Home(data=self.home, config=self.home / "config.toml"))
        words = ["-v", "daemon"] if verbose else ["daemon"]
        said = self.root / "daemon.stderr"
        said.write_text("")
        environ = {**self.environ, **environ}
        process: Forked | subprocess.Popen[bytes]
        if stderr is None:
            process = Forked(words, environ, said, prelude)
        else:
            code = f"import sys\n{prelude}\nfrom mirror.cli import main\nsys.exit(main({words!r}))"
            arguments = ["-c", code] if prelude else ["-m", "mirror.cli", *words]
            process = subprocess.Popen([sys.executable, *arguments], env=environ, stderr=stderr)
        try:
            Bench.until(lambda: Control.find(self.home / "mirror.sock") or process.poll() is not None)
            assert process.poll() is None, said.read_text()
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(60) == ends_with, said.read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    @staticmethod
    def until(fact, seconds=60):
        """Wait for something to become true."""
        limit = time.monotonic() + seconds
        while True:
            try:
                if fact():
                    return
            except duckdb.Error:  # not published yet
                if time.monotonic() > limit:
                    raise
            assert time.monotonic() < limit, "did not happen in time"
            time.sleep(0.05)


@pytest.fixture
def bench():
    root = Path(tempfile.mkdtemp(prefix="m"))
    try:
        with Sandbox(World()) as server:
            yield Bench(root, server)
    finally:
        shutil.rmtree(root)
