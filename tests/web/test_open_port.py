"""A port that other machines reach: by token only, with TLS, within limits, and with one line of the log per query."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mirror.doctor import daemon as doctor
from mirror.settings.home import Home
from mirror.settings.settings import HttpSettings, Settings
from mirror.settings.tokens import Tokens
from mirror.web import gate, guesses, listener, turns
from mirror.web.guesses import MOST_WRONG
from mirror.web.spool import Spool
from tests.query.conftest import publish
from tests.web.door import Door, opened


def own_address():
    """An address of this machine that others may reach, or ""; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        host = probe.getsockname()[0]
    return "" if host.startswith(("127.", "0.")) else host


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("port") / "mirror")


@pytest.fixture(scope="module")
def door(home):
    with opened(home) as door:
        yield door


@pytest.fixture(scope="module")
def secret(home):
    return Tokens(home.tokens).add("ada", [], None)


def certificate(folder, name):
    """A certificate for localhost that signs itself, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(private, hashes.SHA256())
    )
    cert.write_bytes(signed.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert, key


@pytest.fixture
def closed(home):
    door = Door(home)
    yield door
    door.close()


def test_other_machines_reach_the_port_only_once_there_is_a_token(tmp_path, monkeypatch):
    monkeypatch.setattr(listener, "TOKEN_SECONDS", 0.02)
    home = publish(tmp_path / "mirror")
    door = Door(home)
    try:
        door.listen("0.0.0.0:0")
        assert door.listener.status() == {
            "url": None,
            "error": "other machines reach http.listen = 0.0.0.0:0, and there is no token yet; run `mirror token add NAME`",
        }
        waiting = door.listener._waiting
        secret = Tokens(home.tokens).add("ada", [], None)
        door.run(wait_for(waiting))
        assert door.url.startswith("http://127.0.0.1:")
        assert door.ask("GET", "/api/schema", secret).status_code == 200
    finally:
        door.close()


@pytest.mark.skipif(not own_address(), reason="the machine has no address but loopback")
def test_with_an_address_of_a_network_the_page_is_still_on_this_machine(closed, secret):
    closed.listen(f"{own_address()}:0")
    assert closed.url.startswith("http://127.0.0.1:")
    assert closed.ask("GET", "/api/state").status_code == 200
    outside = f"http://{own_address()}:{closed.url.rpartition(':')[2]}"
    token = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{outside}/api/schema", headers=token).status_code == 200
    assert httpx.get(f"{outside}/api/state", headers={"Authorization": f"Bearer {closed.token}"}).status_code == 421
    as_here = {"Authorization": f"Bearer {closed.token}", "Host": "127.0.0.1"}
    assert httpx.get(f"{outside}/api/state", headers=as_here).status_code == 421


@pytest.mark.skipif(not own_address(), reason="the machine has no address but loopback")
def test_a_chosen_port_that_is_taken_on_this_machine_is_chosen_again(closed, monkeypatch):
    bind, asked = listener._socket, []

    def taken_at_first(address):
        asked.append(address)
        if len(asked) == 2:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return bind(address)

    monkeypatch.setattr(listener, "_socket", taken_at_first)
    closed.listen(f"{own_address()}:0")
    assert closed.ask("GET", "/api/state").status_code == 200
    assert len(asked) == 4


def test_doctor_warns_of_tokens_in_clear_text_and_of_a_port_without_one(tmp_path):
    home = Home(tmp_path, tmp_path / "config.toml")

    def found(**http):
        settings = Settings(http=HttpSettings(**http))
        return [(one.level, one.message) for one in doctor.check(home, settings) if one.check == "tokens"]

    clear = "other machines reach http.listen = 0.0.0.0:8642 without TLS, so tokens can be read on the way"
    assert found() == []
    assert found(listen="0.0.0.0:8642", cert="/c.pem") == [
        ("warn", "there is none, so nothing listens on 0.0.0.0:8642")
    ]
    Tokens(home.tokens).add("ada", [], None)
    assert found() == [("ok", "1 valid: ada")]
    assert found(listen="0.0.0.0:8642") == [("warn", clear), ("ok", "1 valid: ada")]
    home.tokens.write_text("[]")
    assert found() == [("fail", f"cannot read {home.tokens}: it is not a file of tokens")]


async def wait_for(task):
    await task


def test_the_page_is_for_this_machine_alone_however_it_is_reached(door):
    """A proxy on this machine names its client, which is not to get the page."""
    by_proxy = {"X-Forwarded-For": "203.0.113.7"}
    assert door.ask("GET", "/api/state").status_code == 200
    assert door.ask("GET", "/api/state", headers=by_proxy).status_code == 421
    assert door.ask("GET", "/api/schema", headers=by_proxy).status_code == 200


def test_tls_is_served_with_the_certificate_and_a_new_one_is_taken_up(closed, tmp_path, secret):
    cert, key = certificate(tmp_path, "first")
    closed.listen(cert=str(cert), key=str(key))
    port = closed.url.rpartition(":")[2]

    def asked(trusted):
        context = ssl.create_default_context(cafile=str(trusted))
        with httpx.Client(verify=context, headers={"Authorization": f"Bearer {secret}"}) as client:
            return client.post(f"https://localhost:{port}/api/query", json={"sql": "SELECT 1 AS one"}).json()["rows"]

    assert asked(cert) == [[1]]
    # What stays on this machine needs no certificate.
    assert closed.ask("GET", "/api/state").status_code == 200
    other, other_key = certificate(tmp_path, "second")
    other_key.rename(key)
    cert.write_bytes(other.read_bytes())
    assert asked(other) == [[1]]
    cert.write_text("half of a certif")
    assert asked(other) == [[1]]


def test_another_machine_without_tls_gets_nothing_where_there_is_tls(closed, tmp_path, secret, monkeypatch):
    monkeypatch.setattr(gate, "is_this_machine", lambda host: False)
    cert, key = certificate(tmp_path, "first")
    closed.listen(cert=str(cert), key=str(key))
    with pytest.raises(httpx.TransportError):
        closed.ask("GET", "/api/schema", secret)


def test_connections_that_never_begin_make_room_for_others(closed, tmp_path, secret, monkeypatch):
    monkeypatch.setattr(listener, "LIMITS", gate.Limits(connections=4))
    cert, key = certificate(tmp_path, "first")
    closed.listen(cert=str(cert), key=str(key))
    host, port = closed.url.removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(12)]
    assert closed.ask("GET", "/api/schema", secret).status_code == 200
    for one in silent:
        one.close()


@pytest.mark.parametrize(
    ("cert", "key", "error"),
    [
        ("{folder}/none.pem", "", "cannot use the certificate {folder}/none.pem: No such file or directory"),
        ("{folder}/other.txt", "", "cannot use the certificate {folder}/other.txt: "),
        ("", "{folder}/none.key", "http.key is set without http.cert; set both, or neither"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_reported(closed, tmp_path, cert, key, error):
    (tmp_path / "other.txt").write_text("hello")
    closed.listen(cert=cert.format(folder=tmp_path), key=key.format(folder=tmp_path))
    found = closed.listener.status()
    assert found["url"] is None
    assert found["error"].startswith(error.format(folder=tmp_path))


class Stopped:
    """A clock that somebody else sets."""

    now = 1000.0

    def monotonic(self):
        return self.now


def test_who_tries_tokens_is_slowed_down_and_others_are_not(closed, secret, monkeypatch):
    clock = Stopped()
    monkeypatch.setattr(guesses, "time", clock)
    closed.listen()

    def asked(token, address):
        answer = closed.ask("GET", "/api/openapi.json", token, {"X-Forwarded-For": address})
        return answer.status_code, answer.headers.get("retry-after")

    assert asked(secret, "203.0.113.1") == (200, None)
    answers = [asked(f"{number:040x}", "203.0.113.1") for number in range(MOST_WRONG + 2)]
    assert answers == [(401, None)] * MOST_WRONG + [(429, "2")] * 2
    # A token that was used from there before, and other addresses.
    assert asked(secret, "203.0.113.1") == (200, None)
    assert asked("f" * 40, "203.0.113.2") == (401, None)
    clock.now += 2.0
    assert [asked("f" * 40, "203.0.113.1") for _ in range(2)] == [(401, None), (429, "2")]


def test_a_token_sends_so_many_queries_in_a_minute(closed, secret, monkeypatch):
    monkeypatch.setattr(turns, "time", Stopped())
    closed.listen(rate=3)
    statuses = [closed.query({"sql": "SELECT 1"}, token=secret).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    answer = closed.query({"sql": "SELECT 1"}, token=secret)
    assert (answer.json()["error"], answer.headers["retry-after"]) == (
        "this token sent more than 3 queries in a minute",
        "20",
    )
    assert closed.query({"sql": "SELECT 1"}).status_code == 200


def test_queries_of_a_token_wait_for_each_other_and_not_too_many(closed, secret, monkeypatch):
    monkeypatch.setattr(turns, "MOST_WAITING", 1)
    closed.listen()
    slow = {
        "sql": "SELECT count(*) FROM range(100000000) a, range(100000) b WHERE a.range + b.range = 7",
        "timeout": 60,
    }
    uses = closed.listener.access.turns._uses
    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(closed.query, slow, token=secret) for _ in range(2)]
        until(lambda: "ada" in uses and uses["ada"].running == 2)
        late = closed.query({"sql": "SELECT 1", "timeout": 0.1}, token=secret)
        assert (late.status_code, late.json()["error"]) == (503, "other queries took all of 0.1 s")
        with sent(closed, secret, b'{"sql": "SELECT 1"}'):
            until(lambda: len(uses["ada"].waiting) == 1)
        # Who leaves waits no longer.
        until(lambda: len(uses["ada"].waiting) == 0)
        running.append(threads.submit(closed.query, {"sql": "SELECT 1"}, token=secret))
        until(lambda: len(uses["ada"].waiting) == 1)
        refused = closed.query({"sql": "SELECT 1"}, token=secret)
        assert (refused.status_code, refused.json()["error"]) == (429, "1 queries of this token wait already")
        # The owner's page, and other tokens, go on.
        assert closed.query({"sql": "SELECT 1"}).status_code == 200
        closed.run(closed.listener.close())
        assert {one.exception() is not None or one.result().status_code for one in running} <= {True, 200, 503}


def sent(door, secret, body):
    """A connection on which a query was sent, and whose answer nobody has read."""
    host, port = door.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = (
        f"POST /api/query HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\nAccept: text/csv\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def until(fact):
    done = threading.Event()
    for _ in range(3000):
        if fact():
            return
        done.wait(0.01)
    raise AssertionError("it did not become true")


def test_each_query_is_one_line_of_the_log(door, secret, caplog):
    with caplog.at_level(logging.INFO, "mirror.web.audit"):
        door.query({"sql": "SELECT 1 AS one,\n 2 AS two"}, token=secret)
        door.query({"sql": f"SELECT '{'x' * 300}'", "limit": 5})
        door.query({"sql": "DROP TABLE runs"}, token=secret)
        door.query({"project": "team/vision", "filter": {"state": "running"}}, "text/csv", token=secret)
        limited = Tokens(door.home.tokens).add("bob", ["team/vision"], None)
        door.query({"project": "team/nlp"}, token=limited)
    lines = [record.getMessage() for record in caplog.records if record.name == "mirror.web.audit"]
    names = [line.partition(" from ")[0].removeprefix("query by ") for line in lines]
    assert names == ["ada", "the owner", "ada", "ada", "bob"]
    assert lines[0].endswith(" ms: SELECT 1 AS one, 2 AS two")
    assert ": 1 rows, " in lines[0]
    assert lines[1].endswith(f": SELECT '{'x' * 192}...")
    assert ": failed: DROP is refused" in lines[2]
    assert "this token may not read team/nlp" in lines[4]
    assert lines[3].endswith('ms: team/vision {"state": "running"}')
    assert secret not in "".join(lines)


def test_a_slow_reader_keeps_no_worker(door, secret):
    """What it has not read yet waits in the spool, beyond a few megabytes on the disk."""
    body = b'{"sql": "SELECT repeat(\'x\', 1000) AS t FROM range(12000)", "limit": 12000}'
    slow = [sent(door, secret, body) for _ in range(5)]
    for one in slow:
        assert one.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert door.query({"sql": "SELECT 1"}, token=secret).status_code == 200
    for one in slow:
        with one, one.makefile("rb") as answer:
            rest = answer.read()
        assert rest.partition(b"\r\n\r\n")[2].count(b"x") == 12_000_000
        assert rest.endswith(b"0\r\n\r\n")


def test_a_spool_returns_what_was_put_in_memory_and_on_the_disk(tmp_path, monkeypatch):
    import asyncio

    from mirror.web import spool as module

    monkeypatch.setattr(module, "IN_MEMORY", 1000)
    pieces = [bytes([number]) * (300 + number) for number in range(50)]

    async def through():
        spool = Spool(tmp_path)
        filled = asyncio.get_running_loop().run_in_executor(None, spool.fill, iter(pieces))
        await filled
        return b"".join([piece async for piece in spool.pieces()])

    assert asyncio.run(through()) == b"".join(pieces)
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_crashes_is_named_and_opened_again(closed, secret, monkeypatch):
    monkeypatch.setattr(listener, "AGAIN_SECONDS", 0.2)
    serve, opened = gate.Gate.serve, []

    async def crash(self, *listeners):
        opened.append(listeners)
        if len(opened) == 1:
            raise RuntimeError("out of luck")
        await serve(self, *listeners)

    monkeypatch.setattr(gate.Gate, "serve", crash)
    closed.listen()
    until(lambda: closed.listener.status()["error"])
    assert closed.listener.status() == {
        "url": None,
        "error": "the port of the page crashed (RuntimeError: out of luck) and is opened again every 0.2 s",
    }
    until(lambda: closed.listener.status()["url"])
    assert closed.query({"sql": "SELECT 1"}).status_code == 200
    assert len(opened) == 2


def test_a_port_that_crashes_is_not_opened_again_after_it_was_closed(closed, monkeypatch):
    monkeypatch.setattr(listener, "AGAIN_SECONDS", 0.02)
    begun = []

    async def crash_at_the_end(self, *_):
        begun.append(self)
        await self._server._ending.wait()
        raise RuntimeError("out of luck")

    monkeypatch.setattr(gate.Gate, "serve", crash_at_the_end)
    closed.listen()
    until(lambda: begun)
    closed.run(closed.listener.close())
    closed.run(asyncio.sleep(0.1))
    assert (closed.listener.status(), len(begun)) == ({"url": None, "error": None}, 1)


def test_a_host_name_whose_server_does_not_answer_holds_up_nothing(closed, secret, monkeypatch):
    goes_on = threading.Event()
    monkeypatch.setattr(listener, "NAME_SECONDS", 0.05)
    monkeypatch.setattr(listener, "_bound", lambda _: [goes_on.wait(30)][:0])
    closed.listen("mirror.example:8642")
    goes_on.set()
    assert closed.listener.status()["error"] == (
        "cannot listen on mirror.example:8642: no address of it was found within 0.05 s; choose another http.listen"
    )
