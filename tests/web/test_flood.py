"""Clients that connect and say nothing, or say it slowly, keep nobody else from the daemon."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from mirror.control import Control
from tests.daemon.test_daemon import add

FEW_DESCRIPTORS = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))"
"""As on most systems; a daemon that may raise its limit does so."""


FLOOD = (
    "{} has more than {} connections at once; idle ones are closed; "
    "passes and commands continue, further such connections are not logged"
)


@pytest.fixture(autouse=True)
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(stack, address, count, family=socket.AF_INET, said=b""):
    """So many connections that say this and then nothing."""
    found = []
    for _ in range(count):
        client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        client.connect(address)
        if said:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(said)
        found.append(client)
    return found


def page_of(bench):
    found = Control(bench.home / "mirror.sock").status()["http"]
    assert found["error"] is None, found
    return found["url"]


def serving(bench):
    add(bench, "one")
    bench.configure(interval="300ms", listen="127.0.0.1:0")


def warnings(bench):
    return [line["message"] for line in bench.log() if line["level"] not in ("info", "debug")]


def closed(client):
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_1200_silent_connections_stop_nothing(bench):
    serving(bench)
    with contextlib.ExitStack() as stack, bench.daemon(FEW_DESCRIPTORS):
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        url = page_of(bench)
        place = (urlsplit(url).hostname, urlsplit(url).port)
        silent = connected(stack, place, 1200)
        add(bench, "two")
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)])
        status = bench.mirror("status", "--json")
        assert json.loads(status.stdout)["daemon"]["running"] is True
        token = (bench.home / "web.token").read_text().strip()
        answer = httpx.get(f"{url}/api/state", headers={"Authorization": f"Bearer {token}"})
        assert [each["runs"] for each in answer.json()["projects"]] == [2]
        assert closed(silent[0])
        for client in silent:
            client.close()
        assert httpx.get(f"{url}/api/state").status_code == 401
        assert warnings(bench) == [FLOOD.format("the port of the page", 256)]
    assert (bench.home / "mirror.log").stat().st_size < 100_000


def test_silent_clients_of_the_control_socket_keep_no_command_from_it(bench):
    serving(bench)
    with contextlib.ExitStack() as stack, bench.daemon(FEW_DESCRIPTORS):
        connected(stack, str(bench.home / "mirror.sock"), 300, socket.AF_UNIX)
        connected(stack, str(bench.home / "mirror.sock"), 100, socket.AF_UNIX, b"POST /sync HTTP/1.1\r\n")
        add(bench, "two")
        assert bench.mirror("sync").stderr.startswith("team/p: ")
        assert sorted(bench.sql("select run_id from runs")) == [("one",), ("two",)]
        assert warnings(bench) == [FLOOD.format("the control socket", 64)]


HURRY = """
import mirror.web.gate as gate
from msgspec.structs import replace
gate._CHECK_SECONDS = 0.05
within = gate.Limits.within
gate.Limits.within = lambda self, share: replace(within(self, share), head=0.4, body=0.4, answer=0.6)
"""


def test_who_keeps_the_server_waiting_is_closed(bench):
    """A head or a body that does not come, however it drips, and a body that nobody wants."""
    serving(bench)
    with contextlib.ExitStack() as stack, bench.daemon(HURRY):
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        url = page_of(bench)
        place = (urlsplit(url).hostname, urlsplit(url).port)
        token = (bench.home / "web.token").read_text().strip()
        known = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n".encode()
        post = b"POST /api/sql HTTP/1.1\r\n" + known + b"Content-Length: 100\r\n\r\n"
        (silent,) = connected(stack, place, 1)
        (half,) = connected(stack, place, 1, said=b"GET / HTTP/1.1\r\nHost: loc")
        (owing,) = connected(stack, place, 1, said=post)
        (idle,) = connected(stack, place, 1, said=b"GET /locked.css HTTP/1.1\r\nHost: localhost\r\n\r\n")
        (stranger,) = connected(
            stack, place, 1, said=b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
        )
        (dripping,) = connected(stack, place, 1, said=b"GET / HTTP/1.1\r\nX: ")

        def ended(client):
            """Whether all that came was the answer, and then the end."""
            client.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(1 << 16):
                    pass
            return True

        def drips(client):
            try:
                client.sendall(b"a")
            except (BrokenPipeError, ConnectionResetError):
                return False
            return True

        started = time.monotonic()
        for client in (dripping, stranger):
            while drips(client):
                time.sleep(0.02)
                assert time.monotonic() - started < 10
        assert all(ended(client) for client in (silent, half, owing, idle))


@pytest.mark.skipif(sys.platform != "linux", reason="the daemon's sockets are counted in /proc")
def test_who_takes_nothing_of_an_answer_is_closed(bench):
    serving(bench)
    with contextlib.ExitStack() as stack, bench.daemon(HURRY):
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        url = page_of(bench)
        place = (urlsplit(url).hostname, urlsplit(url).port)
        token = (bench.home / "web.token").read_text().strip()
        # More than the kernel keeps.
        slow = stack.enter_context(socket.socket())
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(place)
        body = json.dumps({"sql": "select repeat('x', 7000000) as x"}).encode()
        head = f"POST /api/sql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        bench.until(lambda: open_sockets(place[1]) == 1)
        bench.until(lambda: open_sockets(place[1]) == 0)
        assert warnings(bench) == []


def open_sockets(port):
    """Connections to this port that its process still has."""
    text = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01" for line in text)


def test_what_is_not_http_is_answered_and_not_logged(bench):
    serving(bench)
    with contextlib.ExitStack() as stack, bench.daemon():
        url = page_of(bench)
        place = (urlsplit(url).hostname, urlsplit(url).port)
        upgrade = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        huge = b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000
        for said, status in ((b"\x16\x03\x01\r\n\r\n", b"400"), (upgrade, b"401"), (huge, b"400")):
            for client in connected(stack, place, 20, said=said):
                client.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(100).split()[1] == status
        assert warnings(bench) == []


def test_a_client_that_reads_no_answer_does_not_hold_up_the_end(bench):
    serving(bench)
    with (
        contextlib.ExitStack() as stack,
        bench.daemon("import mirror.daemon.main as d; d.CONTROL_GRACE = 1") as daemon,
    ):
        (deaf,) = connected(stack, str(bench.home / "mirror.sock"), 1, socket.AF_UNIX)
        deaf.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(2000):
                deaf.send(b"GET /status HTTP/1.1\r\nHost: mirror\r\n\r\n")
        assert Control(bench.home / "mirror.sock").status()["pid"] == daemon.pid
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0


def test_a_daemon_raises_the_number_of_files_that_it_may_open(bench):
    serving(bench)
    with bench.daemon("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))") as daemon:
        page_of(bench)
        assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (2048, 2048)
    with bench.daemon("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))"):
        page_of(bench)
    assert warnings(bench) == ["this process may open only 300 files at once; raise `ulimit -n` to 512 or more"]
