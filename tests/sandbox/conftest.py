"""A server for each test, and a plain HTTP client that knows its key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from mirror.sandbox import Sandbox, World, sample


@dataclass(frozen=True)
class Client:
    """Asks one server, and answers with what came back."""

    server: Sandbox
    http: httpx.Client

    def post(self, query: str, **variables: Any) -> httpx.Response:
        return self.http.post("/graphql", json={"query": query, "variables": variables})

    def data(self, query: str, **variables: Any) -> Any:
        answer = self.post(query, **variables)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert "errors" not in body, body
        return body["data"]

    def errors(self, query: str, **variables: Any) -> list[str]:
        return [error["message"] for error in self.post(query, **variables).json()["errors"]]


@pytest.fixture
def world() -> World:
    return sample.small()


@pytest.fixture
def server(world: World) -> Iterator[Sandbox]:
    with Sandbox(world) as running:
        yield running


@pytest.fixture
def client(server: Sandbox) -> Iterator[Client]:
    with connected(server) as client:
        yield client


@contextmanager
def connected(server: Sandbox) -> Iterator[Client]:
    """A client of this server inside a `with` block."""
    with httpx.Client(base_url=server.url, auth=("api", server.key), timeout=10) as http:
        yield Client(server, http)
