"""Shows the whole product against an embedded sample server, for `mirror demo`."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from mirror.control import Control
from mirror.errors import MirrorError
from mirror.sandbox import Run, Sandbox, World, sample

ENTITY = "acme"
PROJECTS = ("vision", "language", "rl-control")
LIVE_EVERY = 0.25
"""Seconds between two steps of the running run."""

START_LIMIT = 60.0
"""Seconds within which the daemon must have mirrored the sample projects."""

CONFIG = """projects = {projects}

[sync]
interval = "10s"
live_interval = "1s"
reports = true

[publish]
min_interval = "500ms"

[http]
listen = "127.0.0.1:0"
"""


class Demo:
    """A sample server, a daemon that mirrors it into its own folder, and commands printed as a user types them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        # One folder per user, kept until the next demo, so that the mirrored file can be looked at afterwards.
        self.home = Path(tempfile.gettempdir()) / f"wandb-mirror-demo-{getpass.getuser()}"
        self._environ = dict(os.environ)
        self._signals = _Signals()
        self._daemon: subprocess.Popen[bytes] | None = None

    def run(self, *, keep: bool) -> None:
        """Show everything; with `keep`, keep running until a signal.

        SIGINT, SIGTERM and SIGHUP (the terminal was closed) end the server and the daemon. Raises KeyboardInterrupt if
        one arrives before everything was shown.
        """
        with self._signals, ExitStack() as stack:
            stack.enter_context(self._home_claimed())
            world = sample.full(until=datetime.now(UTC).replace(tzinfo=None))
            server = stack.enter_context(Sandbox(world))
            stack.enter_context(sample.keep_logging(_running(world), every=LIVE_EVERY))
            self._environ |= {
                "MIRROR_HOME": str(self.home),
                "WANDB_BASE_URL": server.url,
                "WANDB_API_KEY": server.key,
            }
            for name in ("WANDB_ENTITY", "MIRROR_CONFIG"):
                self._environ.pop(name, None)
            projects = json.dumps([f"{ENTITY}/{name}" for name in PROJECTS])
            (self.home / "config.toml").write_text(CONFIG.format(projects=projects))
            stack.callback(self._stop)
            daemon = self._start_daemon()
            self._comment(
                f"A sample W&B server runs at {server.url}, and a daemon mirrors its projects into {self.home}."
            )
            self._wait_until_mirrored(daemon)
            self._show()
            if keep:
                self._keep_running(server.url, server.key)
        if self._signals.hung_up:
            return  # There is no terminal left to write to.
        self._comment("Server and daemon have stopped. The mirror is a DuckDB file; open it with any DuckDB client:")
        self._say(f"  duckdb -readonly {self.home / 'mirror.duckdb'}")
        self._say(f"  python -c \"import duckdb; print(duckdb.connect('{self.home / 'mirror.duckdb'}', read_only=True)")
        self._say("                            .sql('from runs limit 5'))\"")
        self._comment("To mirror your own projects: `mirror login`, `mirror init`, `mirror sync`, `mirror daemon`.")

    @contextmanager
    def _home_claimed(self) -> Iterator[None]:
        """Empty the home, and hold it against other demos. Raises MirrorError if one runs, or its daemon does."""
        if self.home.is_symlink() or (self.home.exists() and self.home.stat().st_uid != os.getuid()):
            raise MirrorError(f"{self.home} belongs to another user; remove it or set TMPDIR")
        self.home.mkdir(mode=0o700, exist_ok=True)
        note = self.home / "demo.pid"
        descriptor = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            try:
                # The lock ends with its process, however that ends, and cannot belong to another one, unlike a number.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                pid = note.read_text().strip() if note.exists() else ""
                raise MirrorError(_in_the_way("another demo is running", pid, self.home)) from error
            if control := Control.find(self.home / "mirror.sock"):
                pid = str(control.status().get("pid", ""))
                raise MirrorError(_in_the_way("the daemon of a demo that was killed is still running", pid, self.home))
            for entry in self.home.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()
            note.write_text(f"{os.getpid()}\n")
            yield
            note.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _start_daemon(self) -> subprocess.Popen[bytes]:
        # A signal between the start and the assignment would leave a daemon that nobody ends.
        with self._signals.held(), (self.home / "daemon.out").open("wb") as out:
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "mirror.cli", "daemon"],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self._daemon

    def _stop(self) -> None:
        daemon = self._daemon
        if daemon is not None and daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _wait_until_mirrored(self, daemon: subprocess.Popen[bytes]) -> None:
        """Wait until the daemon has pulled each project once."""
        limit = time.monotonic() + START_LIMIT
        while time.monotonic() < limit:
            if daemon.poll() is not None:
                raise MirrorError(f"the daemon ended: {(self.home / 'daemon.out').read_text().strip()[-300:]}")
            # A sync goes through the daemon, and waits for its running passes.
            if (self.home / "mirror.sock").exists() and self._mirror("sync", shown=False).returncode == 0:
                return
            time.sleep(0.2)
        raise MirrorError(f"nothing was mirrored within {START_LIMIT:.0f} s; see {self.home / 'mirror.log'}")

    def _show(self) -> None:
        self._mirror("status")
        self._comment("SQL over all runs of all projects:")
        self._mirror(
            "query",
            "select project, state, count(*) as runs, sum(history_rows)::bigint as history_rows\n"
            "              from runs group by all order by all",
        )
        self._comment("The runs of a project that match all of these terms:")
        runs = ("runs", f"{ENTITY}/vision", "state=finished", "config.lr<0.01")
        self._mirror(*runs, "--order", "config.lr", "--limit", "5", "--select", "run_id,name,config.lr,history_rows")
        self._comment("The same as a filter of W&B, as SQL, and how many runs each term matches:")
        self._mirror(*runs, "--explain")
        self._comment("The reports of a project; `mirror report TITLE -o FILE.html` renders one:")
        self._mirror("report", f"{ENTITY}/vision")
        self._comment("A run is training right now; the mirror follows it:")
        growing = (
            "select name, state, history_rows from runs where state = 'running' order by heartbeat_at desc limit 1"
        )
        self._mirror("query", growing)
        time.sleep(4)
        self._mirror("query", growing)

    def _mirror(self, *arguments: str, shown: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run one command; print it first as a user would type it."""
        if shown:
            self._say(f"$ mirror {' '.join(map(_quoted, arguments))}")
            sys.stdout.flush()
        out = None if shown else subprocess.DEVNULL
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "mirror.cli", *arguments],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=False,
        )
        if shown:
            self._say("")
            if done.returncode:
                raise MirrorError(f"`mirror {arguments[0]}` failed ({done.returncode}); see {self.home / 'mirror.log'}")
        return done

    def _keep_running(self, url: str, key: str) -> None:
        self._comment("Server and daemon keep running until Ctrl-C. In another terminal:")
        for name, value in (("MIRROR_HOME", self.home), ("WANDB_BASE_URL", url), ("WANDB_API_KEY", key)):
            self._say(f"  export {name}={shlex.quote(str(value))}")
        self._say("  mirror status")
        self._say("  mirror open")
        self._say(f"  mirror report {shlex.quote(sample.REPORT)} -o report.html")
        sys.stdout.flush()
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            if not self._signals.hung_up:
                self._say("")

    def _comment(self, text: str) -> None:
        self._say(f"# {text}")


class _Signals:
    """Within `with`, the first of SIGINT, SIGTERM and SIGHUP raises KeyboardInterrupt; later ones do nothing.

    So a second Ctrl-C, or the SIGHUP after a SIGTERM, does not interrupt the cleanup. A signal that was ignored before,
    as by nohup, stays so.
    """

    def __init__(self) -> None:
        self.hung_up = False
        self._holding = False
        self._arrived = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            former = signal.getsignal(number)
            if former is not signal.SIG_IGN:
                self._former[number] = former
                signal.signal(number, self._end)

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raise for a signal that arrives inside the block only at its end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._arrived:
            raise KeyboardInterrupt

    def _end(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.hung_up |= number == signal.SIGHUP
        if self._arrived:
            return
        self._arrived = True
        if not self._holding:
            raise KeyboardInterrupt


def _in_the_way(what: str, pid: str, home: Path) -> str:
    """Return what keeps a demo from starting, and the command that ends it."""
    if pid:
        return f"{what} in {home}, process {pid}; end it with `kill {pid}`"
    return f"{what} in {home}; wait until it has ended, or set TMPDIR"


def _running(world: World) -> Run:
    """Return a run of the sample that is still training."""
    return next(run for name in PROJECTS for run in world.runs(ENTITY, name) if run.state == "running")


def _quoted(argument: str) -> str:
    """Quote as a user would: double quotes around SQL, single quotes around JSON."""
    if " " in argument and '"' not in argument and "$" not in argument:
        return f'"{argument}"'
    return shlex.quote(argument)
