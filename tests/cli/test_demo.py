"""`mirror demo` leaves nothing behind, however it ends, and names what keeps it from starting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.control import Control

DEMO = [sys.executable, "-m", "mirror.cli", "demo", "--keep"]


@pytest.fixture
def environ():
    # What ignores SIGHUP, as nohup does, has its children ignore it, too.
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # A short path, since the demo's home holds a socket.
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield {**os.environ, "TMPDIR": folder, "NO_COLOR": "1"}
    signal.signal(signal.SIGHUP, former)


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@contextmanager
def demo(environ):
    """A demo whose daemon is running: its process, its home and the daemon's pid."""
    process = subprocess.Popen(
        DEMO, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    daemon = None
    try:
        while process.poll() is None:
            for home in Path(environ["TMPDIR"]).iterdir():
                if daemon is None and (control := Control.find(home / "mirror.sock")):
                    daemon = control.status()["pid"]
            if daemon is not None:
                break
            time.sleep(0.02)
        assert daemon is not None, process.communicate()
        yield process, home, daemon
    finally:
        for pid in (process.pid, daemon):
            if pid is not None and not ended(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def refused(environ) -> str:
    done = subprocess.run(DEMO, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_ends_the_demo_its_server_and_its_daemon(environ, number):
    with demo(environ) as (process, home, daemon):
        process.send_signal(number)
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, ended(daemon)) == (130, True), out
        assert not (home / "mirror.sock").exists()


def test_what_keeps_a_demo_from_starting_is_named_with_the_command_that_ends_it(environ):
    with demo(environ) as (process, home, daemon):
        assert refused(environ) == (
            f"error: another demo is running in {home}, process {process.pid}; end it with `kill {process.pid}`\n"
        )
        process.kill()
        process.wait()
        assert refused(environ) == (
            f"error: the daemon of a demo that was killed is still running in {home}, process {daemon}; "
            f"end it with `kill {daemon}`\n"
        )
        assert not ended(daemon)
