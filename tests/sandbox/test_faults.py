"""Each kind of fault, the limit of requests, and what is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from mirror.sandbox import Sandbox, World
from tests.sandbox.conftest import Client, connected

VIEWER = "query Viewer { viewer { id username } }"


@pytest.fixture
def world() -> World:
    return World()


def test_429_says_when_to_come_back(client: Client) -> None:
    client.server.faults.add("429", times=2, retry_after=0.25)
    for _ in range(2):
        answer = client.post(VIEWER)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "0.25")
    assert client.post(VIEWER).status_code == 200
    assert client.server.faults.counts == {"429": 2}


@pytest.mark.parametrize("kind", ["500", "502", "503"])
def test_gateways_answer_html(client: Client, kind: str) -> None:
    client.server.faults.add(kind)
    answer = client.post(VIEWER)
    assert answer.status_code == int(kind)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<html>" in answer.text


def test_reset_in_the_middle_of_a_body(client: Client) -> None:
    client.server.faults.add("reset")
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.post(VIEWER)
    assert client.post(VIEWER).status_code == 200
    assert client.server.faults.counts == {"reset": 1}


def test_truncated_is_valid_http_and_half_the_json(client: Client) -> None:
    whole = client.post(VIEWER).text
    client.server.faults.add("truncated")
    answer = client.post(VIEWER)
    assert answer.status_code == 200
    assert answer.text == whole[: len(whole) // 2]


def test_graphql_errors_come_with_status_200(client: Client) -> None:
    client.server.faults.add("graphql")
    answer = client.post(VIEWER)
    assert answer.status_code == 200
    assert answer.json() == {
        "errors": [{"message": "An internal error occurred. Please contact support."}],
        "data": None,
    }


def test_latency_delays_the_right_answer(client: Client) -> None:
    client.server.faults.add("latency", seconds=0.3)
    began = time.monotonic()
    assert client.data(VIEWER)["viewer"]["username"] == "ada"
    assert time.monotonic() - began >= 0.3


def test_a_fault_can_be_meant_for_one_operation(client: Client) -> None:
    client.server.faults.add("500", times=None, operation="Other")
    assert client.post(VIEWER).status_code == 200
    assert client.post("query Other { viewer { id } }").status_code == 500
    assert client.post("query Other { viewer { id } }").status_code == 500
    client.server.faults.clear()
    assert client.post("query Other { viewer { id } }").status_code == 200
    assert client.server.faults.counts == {"500": 2}


def test_probable_faults_are_drawn_from_the_seed() -> None:
    def statuses(seed: int) -> Iterator[int]:
        with Sandbox(World(), seed=seed) as server, connected(server) as client:
            server.faults.add("500", times=None, probability=0.3)
            yield from [client.post(VIEWER).status_code for _ in range(40)]

    first = list(statuses(7))
    assert first == list(statuses(7))
    assert 3 <= first.count(500) <= 25


def test_faulty_changes_are_not_made(client: Client, world: World) -> None:
    """A 5xx comes before the work is done, a reset after it: as with a real server, a client cannot tell."""
    upsert = 'mutation U { upsertBucket(input: {modelName: "p", name: "%s"}) { inserted } }'
    client.server.faults.add("502")
    assert client.post(upsert % "first").status_code == 502
    assert world.find(None, "p", "first") is None
    client.server.faults.add("reset")
    with pytest.raises(httpx.HTTPError):
        client.post(upsert % "second")
    assert world.find(None, "p", "second") is not None


def test_an_unknown_fault_is_refused(server: Sandbox) -> None:
    with pytest.raises(ValueError, match="unknown fault '418'"):
        server.faults.add("418")


def test_the_rate_limit_refuses_and_recovers() -> None:
    with Sandbox(World(), rate_limit=5) as server, connected(server) as client:
        answers = [client.post(VIEWER) for _ in range(8)]
        assert [answer.status_code for answer in answers[:5]] == [200] * 5
        assert answers[0].headers["RateLimit-Remaining"] == "800"
        refused = answers[-1]
        assert refused.status_code == 429
        assert 0 < float(refused.headers["Retry-After"]) <= 0.2
        assert int(refused.headers["RateLimit-Remaining"]) < 200
        assert float(refused.headers["RateLimit-Reset"]) > 0
        time.sleep(0.25)
        assert client.post(VIEWER).status_code == 200
        assert server.requests["Viewer"] == 9


def test_the_port_is_free_after_the_block() -> None:
    with Sandbox(World()) as server:
        url = server.url
        assert httpx.post(f"{url}/graphql").status_code == 401
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{url}/graphql")
