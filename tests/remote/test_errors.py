"""Failures between the mirror and a server are sorted by what can be done about them, and reported while they last."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time

import httpx
import pytest
from msgspec.structs import replace

from mirror.errors import AuthError
from mirror.remote import client, errors
from mirror.remote.client import Server
from mirror.remote.errors import (
    CommError,
    Denied,
    Malformed,
    NoConnection,
    NotFound,
    RateLimited,
    SlowAnswer,
    TooMuch,
    Unanswered,
    Unreachable,
)
from mirror.sandbox import Sandbox, World
from tests.remote.network import answering, dropping
from tests.sync.rig import HASTY

BRIEF = replace(HASTY, attempts=3, connects=2, slow=2, seconds=5)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(World()) as server:
        server.world.add_run("team", "p", run_id="one").add_file("notes.txt", "hello")
        yield server


def asked(url, key="k", *, timeout=0.3, retry=BRIEF, ask=None):
    """The error of a question, the seconds it took, and how often the question was sent."""

    async def go():
        async with Server(url, key, timeout=timeout, retry=retry) as server:
            began = time.monotonic()
            with pytest.raises(CommError) as raised:
                await (ask or Server.viewer)(server)
            return raised.value, time.monotonic() - began, server.requests.total()

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("fault", "kind", "message", "requests"),
    [
        ("403", Denied, "denies Viewer: permission denied", 1),
        ("404", NotFound, 'reports "not found": project not found', 1),
        ("429", RateLimited, "limits the rate of requests (429)", 3),
        ("500", TooMuch, "failed to answer Viewer (500)", 3),
        ("502", TooMuch, "failed to answer Viewer (502)", 3),
        ("504", SlowAnswer, "did not answer Viewer in time (504)", 2),
        ("reset", TooMuch, "broke off its answer to Viewer", 3),
        ("truncated", TooMuch, "sent a broken answer to Viewer", 3),
        ("graphql", TooMuch, "answered Viewer with an error: An internal error", 3),
        ("html", Malformed, "answers Viewer with HTML, not as the W&B API: 'Sign in \N{MIDDLE DOT} Example Univ", 2),
        ("redirect", Malformed, "redirects Viewer (302) to https://login.example.com/sso; sign in there", 2),
    ],
)
def test_each_answer_is_one_kind_of_error(sandbox, fault, kind, message, requests):
    sandbox.faults.add(fault, times=None, retry_after=0.01)
    try:
        error, _, sent = asked(sandbox.url, sandbox.key, timeout=5.0)
    finally:
        sandbox.faults.clear()
    assert type(error) is kind
    assert message in str(error)
    assert sent == requests
    assert "token" not in str(error)


def test_a_key_that_is_not_accepted_is_an_error_of_the_key(sandbox):
    error, _, sent = asked(sandbox.url, "0" * 40, timeout=5.0)
    assert (type(error), sent) == (AuthError, 1)


def test_a_server_that_drops_packets_cannot_be_connected_to_and_is_soon_given_up():
    with dropping() as url:
        error, seconds, sent = asked(url)
    assert type(error) is NoConnection
    assert str(error) == f"cannot reach {url} (no connection in time); check the network and WANDB_BASE_URL"
    assert sent == 2
    assert seconds < 30


def test_what_was_found_out_about_a_host_is_not_found_out_again_by_every_request():
    async def go(url):
        async with Server(url, "k", timeout=0.3, retry=BRIEF) as server:
            for _ in range(5):
                with pytest.raises(NoConnection, match="cannot reach"):
                    await server.viewer()
            sent = server.requests.total()
            server._resting.clear()
            with pytest.raises(NoConnection):
                await server.viewer()
            return sent, server.requests.total()

    with dropping() as url:
        assert asyncio.run(go(url)) == (2, 4)


def test_a_name_that_does_not_exist_and_a_port_where_nobody_listens():
    error, _, _ = asked("http://no-such-host.invalid")
    assert type(error) is NoConnection
    assert str(error).startswith("cannot find the host no-such-host.invalid; check the network")
    error, _, _ = asked("http://127.0.0.1:9")
    assert type(error) is NoConnection
    assert str(error).startswith("cannot reach http://127.0.0.1:9 (")


def test_a_proxy_that_cannot_be_reached_is_named_by_its_setting_and_its_password_by_nothing(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    error, _, _ = asked("http://api.example.com")
    assert type(error) is NoConnection
    assert str(error).startswith("cannot reach http://api.example.com through HTTP_PROXY (")
    assert "secret" not in str(error)


def test_a_proxy_that_wants_a_password_says_so(monkeypatch):
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    monkeypatch.delenv("NO_PROXY", raising=False)
    with answering(refusal) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        error, _, _ = asked("http://api.example.com")
        assert type(error) is NoConnection
        assert "through HTTP_PROXY: the proxy wants a password (407)" in str(error)
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        error, _, _ = asked("https://api.example.com")
        assert type(error) is NoConnection
        assert "through HTTPS_PROXY: the proxy refuses (407" in str(error)


def test_no_tls_where_tls_was_expected_is_no_connection():
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as url:
        error, _, _ = asked(url.replace("http:", "https:"))
    assert type(error) is NoConnection
    assert "no TLS connection" in str(error)


def test_a_certificate_that_is_not_trusted_is_not_asked_again():
    certificate = httpx.ConnectError("self-signed certificate")
    certificate.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    failure = errors.of_transport("https://wandb.example.com", "Viewer", certificate)
    assert type(failure) is NoConnection
    assert not errors.passes(failure)
    assert "the certificate of https://wandb.example.com is not valid" in str(failure)
    assert "SSL_CERT_FILE" in str(failure)


@pytest.mark.parametrize("drips", ["head", "body"])
def test_an_answer_that_drips_is_one_that_does_not_come(monkeypatch, drips):
    """Each byte comes within the time of a read, the whole never does."""
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.3)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n"
    if drips == "head":
        with answering(head * 50, every=0.1) as url:
            error, seconds, sent = asked(url, timeout=0.3)
    else:
        with Sandbox(World()) as server:
            server.faults.add("drip", times=None, seconds=0.1)
            error, seconds, sent = asked(server.url, server.key, timeout=0.3)
    assert type(error) is SlowAnswer
    assert str(error).endswith("did not answer Viewer in time")
    assert sent == 2
    assert seconds < 30


def test_a_file_that_drips_is_given_up_too(sandbox):
    sandbox.faults.add("drip", times=None, operation="file", seconds=0.05)
    query = 'query F { project(name: "p", entityName: "team") { run(name: "one") { files { edges { node { directUrl } } } } } }'

    async def download(server):
        # A server that is busy may need longer for this than a piece of the file may take.
        async with Server(sandbox.url, sandbox.key) as patient:
            data = await patient.graphql("F", query, {})
        await server.download(data["project"]["run"]["files"]["edges"][0]["node"]["directUrl"])

    try:
        error, seconds, sent = asked(sandbox.url, sandbox.key, timeout=0.1, ask=download)
    finally:
        sandbox.faults.clear()
    assert type(error) is SlowAnswer
    assert str(error).endswith("did not answer /storage/files/team/p/one/notes.txt in time")
    assert sent == 2
    assert seconds < 30


def test_an_answer_that_is_too_large_is_broken_off(sandbox, monkeypatch):
    monkeypatch.setattr(client, "MOST_ANSWER", 20)
    error, _, sent = asked(sandbox.url, sandbox.key, timeout=5.0)
    assert (type(error), sent) == (TooMuch, 1)
    assert "answers Viewer with more than" in str(error)


def test_a_question_and_its_smaller_forms_share_one_time():
    async def go(sandbox):
        retry = replace(HASTY, seconds=0.5, slow=100)
        async with Server(sandbox.url, sandbox.key, timeout=0.2, retry=retry) as server:
            began = time.monotonic()
            with server.together() as effort:
                while not effort.over:
                    with pytest.raises(SlowAnswer):
                        await server.graphql("Viewer", "query Viewer { viewer { id } }", {})
            return time.monotonic() - began

    with Sandbox(World()) as sandbox:
        sandbox.faults.add("latency", times=None, seconds=1.0)
        assert 0.5 < asyncio.run(go(sandbox)) < 30


def test_the_tree_says_what_a_smaller_question_may_help():
    assert [issubclass(kind, Unanswered) for kind in (SlowAnswer, TooMuch)] == [True] * 2
    assert [issubclass(kind, Unreachable) for kind in (NoConnection, RateLimited, Malformed)] == [True] * 3


def test_what_is_wrong_is_reported_at_the_first_failure_once_and_for_how_long_it_is_tried(sandbox, caplog):
    sandbox.faults.add("html", times=3)
    with caplog.at_level(logging.WARNING, "mirror.remote"):

        async def go():
            async with Server(sandbox.url, sandbox.key, retry=replace(HASTY, first_wait=0.1, longest_wait=10)) as one:
                await asyncio.gather(*(one.viewer() for _ in range(3)))

        asyncio.run(go())
    page = f"{sandbox.url} answers Viewer with HTML, not as the W&B API: 'Sign in \N{MIDDLE DOT} Example University'"
    hint = "check WANDB_BASE_URL, and whether the network wants a login"
    assert [record.message for record in caplog.records] == [f"{page}; {hint}; trying again for up to 1 s"]


def test_what_passes_at_once_is_not_worth_a_word(sandbox, caplog):
    sandbox.faults.add("502", times=2)

    async def go():
        async with Server(sandbox.url, sandbox.key, retry=HASTY) as one:
            await one.viewer()

    with caplog.at_level(logging.WARNING, "mirror.remote"):
        asyncio.run(go())
    assert caplog.records == []
