"""What systemd hears of the daemon: readiness, state, and pings that stop when anything hangs."""

from __future__ import annotations

import signal
import socket
import sys
import time
import uuid
from contextlib import contextmanager

import pytest

from mirror.control import Control
from tests.daemon.test_daemon import add


class Ear:
    """A service manager's socket, and what it heard."""

    def __init__(self, listening):
        self._socket = listening
        self._socket.settimeout(0.05)
        self.heard = []

    def listen(self):
        """Take in what has come; every message so far, as one list of its lines."""
        while True:
            try:
                message = self._socket.recv(65536).decode()
            except TimeoutError:
                return self.heard
            self.heard += message.splitlines()

    def pings(self, seconds):
        """How many pings come within a time."""
        self.listen()
        before = self.heard.count("WATCHDOG=1")
        time.sleep(seconds)
        return self.listen().count("WATCHDOG=1") - before


@contextmanager
def manager(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        yield Ear(listening)


def test_it_tells_when_it_is_ready_what_it_does_and_when_it_ends(bench):
    add(bench, "one", state="running")
    bench.configure(interval="1h")
    with manager(str(bench.root / "notify")) as ear:
        with bench.daemon(NOTIFY_SOCKET=str(bench.root / "notify"), WATCHDOG_USEC="600000") as daemon:
            bench.until(lambda: "READY=1" in ear.listen())
            assert Control.find(bench.home / "mirror.sock").status()["pid"] == daemon.pid
            status = "STATUS=1 project, 1 live; last pass team/p at "
            bench.until(lambda: any(line.startswith(status) and line.endswith("Z ok") for line in ear.listen()))
            assert ear.pings(1.5) >= 3
            ear.heard.clear()
            daemon.send_signal(signal.SIGHUP)
            bench.until(lambda: "READY=1" in ear.listen())
            state = [line for line in ear.heard if not line.startswith(("WATCHDOG", "STATUS"))]
            assert [line.partition("=")[0] for line in state] == ["RELOADING", "MONOTONIC_USEC", "READY"]
            assert abs(int(state[1].partition("=")[2]) / 1e6 - time.monotonic()) < 30
            ear.heard.clear()
        assert [line for line in ear.listen() if not line.startswith("WATCHDOG")][-2:] == [
            "STOPPING=1",
            "STATUS=stopping",
        ]


@pytest.mark.skipif(sys.platform != "linux", reason="the abstract namespace is Linux' own")
def test_a_socket_in_the_abstract_namespace_is_notified_too(bench):
    bench.configure(interval="1h")
    name = f"mirror-{uuid.uuid4().hex}"
    with manager(f"\0{name}") as ear, bench.daemon(NOTIFY_SOCKET=f"@{name}"):
        bench.until(lambda: "READY=1" in ear.listen())
        assert "WATCHDOG=1" not in ear.heard  # nobody asked for pings


def test_a_writer_that_hangs_gets_no_more_pings_though_the_loop_answers(bench):
    add(bench, "one")
    bench.configure(interval="1h")
    hang = bench.root / "hang"
    prelude = f"""
import os, time
from mirror.store.store import Store
publish = Store.publish
def hanging(store):
    while os.path.exists({str(hang)!r}):
        time.sleep(0.05)
    return publish(store)
Store.publish = hanging
"""
    address = str(bench.root / "notify")
    with manager(address) as ear, bench.daemon(prelude, NOTIFY_SOCKET=address, WATCHDOG_USEC="600000"):
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        bench.until(lambda: ear.pings(0.3) > 0)
        hang.touch()
        bench.mirror("flush", "--all", "--no-wait")
        bench.until(lambda: ear.pings(1.2) == 0)
        assert Control.find(bench.home / "mirror.sock").status()["pid"]
        hang.unlink()
        bench.until(lambda: ear.pings(0.3) > 0)


def test_a_wrong_key_is_found_out_before_it_calls_itself_ready(bench):
    bench.configure()
    with manager(str(bench.root / "notify")) as ear:
        done = bench.mirror("daemon", check=False, WANDB_API_KEY="0" * 40, NOTIFY_SOCKET=str(bench.root / "notify"))
        assert done.returncode == 3
        assert ear.listen() == ["STOPPING=1", "STATUS=stopping"]
    assert [line["message"] for line in bench.log()][-1].startswith(
        f"ended: {bench.server.url} does not accept the API"
    )


def test_a_manager_that_has_gone_is_no_reason_to_end(bench):
    bench.configure(interval="1h")
    with bench.daemon(NOTIFY_SOCKET=str(bench.root / "nobody"), WATCHDOG_USEC="300000"):
        bench.until(lambda: "started" in str(bench.log()))
        assert (bench.home / "mirror.sock").exists()
