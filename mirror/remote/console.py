"""Pages of the console output of runs, several runs in one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mirror.remote import queries
from mirror.remote.client import FeatureMissing, Server
from mirror.remote.runs import moment
from mirror.store.records import ConsolePage, ProjectKey

PAGE_LINES = 1000
"""Lines of one run in one answer."""


@dataclass(frozen=True)
class Place:
    """Where the console of a run goes on: behind the server's cursor `after`, which leads to line `first`."""

    run_id: str
    after: str | None = None
    first: int = 0


async def fetch(
    server: Server, project: ProjectKey, places: Sequence[Place]
) -> dict[Place, tuple[ConsolePage, Place] | None]:
    """The page at each place, and the place behind it; None for a run that the server does not have."""
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project, "first": PAGE_LINES}
    for index, place in enumerate(places):
        variables[f"run{index}"] = place.run_id
        variables[f"after{index}"] = place.after
    data = await _ask(server, len(places), variables)
    found = data.get("project") or {}
    answers = [found.get(f"r{index}") for index in range(len(places))]
    return {
        place: _page(place, answer["logLines"] or {}) if answer else None
        for place, answer in zip(places, answers, strict=True)
    }


async def _ask(server: Server, count: int, variables: dict[str, Any]) -> dict[str, Any]:
    lacks = server.lacks
    if "LogLine.number" not in lacks:
        try:
            return await server.graphql("MirrorConsole", queries.log_lines(count, queries.LINE_FIELDS), variables)
        except FeatureMissing as error:
            if "LogLine" not in str(error):
                raise
            lacks.add("LogLine.number")
    return await server.graphql("MirrorConsole", queries.log_lines(count, queries.PLAIN_LINE_FIELDS), variables)


def _page(place: Place, answer: dict[str, Any]) -> tuple[ConsolePage, Place]:
    nodes = [edge["node"] for edge in answer.get("edges") or []]
    info = answer.get("pageInfo") or {}
    # Lines rise, whatever numbers the server gives them; a number that does not rise is replaced by the place.
    lines = []
    line = place.first
    for node in nodes:
        number = node.get("number")
        line = max(line, number) if isinstance(number, int) else line
        lines.append((line, moment(node.get("timestamp")), node.get("level") or None, node.get("line") or ""))
        line += 1
    after = info.get("endCursor")
    last = not info.get("hasNextPage") or not nodes or after == place.after
    labels = [node.get("label") for node in nodes]
    return ConsolePage(place.run_id, place.first, lines, last, labels), Place(place.run_id, after, line)
