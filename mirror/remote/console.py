"""Pages of the console output of runs, several runs in one request.

Source: query_run_console_logs.graphql and runhandler.go of the official client.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from mirror.remote import queries
from mirror.remote.client import Server
from mirror.remote.errors import FeatureMissing
from mirror.remote.run_records import moment
from mirror.store.records import ConsoleLine, ConsolePage, ProjectKey

PAGE_LINES = 1000
"""Lines per run in one answer."""

TAIL_LINES = 10_000
"""Lines requested from a server that only returns the end of a console; it may return fewer."""

log = logging.getLogger("mirror.remote")


class Position(Struct, frozen=True):
    """A position in the console of a run: after the server's cursor `after`, where line `first` follows."""

    run_id: str
    after: str | None = None
    first: int = 0


class Answer(Struct, frozen=True):
    """A page, the position after it, and the first line that the server has, if that was requested.

    `more`: something follows. `stuck`: the page is empty although lines follow; a request for this run alone may get
    them.
    """

    page: ConsolePage
    behind: Position
    head: ConsoleLine | None
    more: bool
    stuck: bool


async def fetch(
    server: Server, project: ProjectKey, positions: Sequence[Position], *, heads: bool = False
) -> dict[Position, Answer | None]:
    """Return the page at each position; None for a run that the server does not have.

    A server that cannot page through a console returns the end of it; that is logged once.
    """
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project}
    for index, position in enumerate(positions):
        variables[f"run{index}"] = position.run_id
        variables[f"after{index}"] = position.after
    data = await _ask(server, len(positions), variables, heads=heads)
    found = data.get("project") or {}
    answers = [found.get(f"r{index}") for index in range(len(positions))]
    make = _tail if queries.CONSOLE_PAGES in server.missing_features else _page
    return {
        position: make(position, answer) if answer else None
        for position, answer in zip(positions, answers, strict=True)
    }


async def _ask(server: Server, count: int, variables: dict[str, Any], *, heads: bool) -> dict[str, Any]:
    missing = server.missing_features
    while True:
        plain = "LogLine.number" in missing
        fields = queries.PLAIN_LINE_FIELDS if plain else queries.LINE_FIELDS
        counted = "name" if "logLineCount" in missing else "logLineCount"
        if queries.CONSOLE_PAGES in missing:
            document, first = queries.log_tails(count, fields, counted), TAIL_LINES
            sent = {name: value for name, value in variables.items() if not name.startswith("after")}
        else:
            # Without line numbers, the first line cannot be distinguished from a later one.
            document, first = queries.log_lines(count, fields, counted, heads=heads and not plain), PAGE_LINES
            sent = variables
        try:
            return await server.graphql("MirrorConsole", document, {**sent, "first": first}, divisible=count > 1)
        except FeatureMissing as error:
            names = {queries.CONSOLE_PAGES: queries.CONSOLE_PAGES, "logLineCount": "logLineCount"}
            names["LogLine.number"] = "LogLine"
            refused = {name for name, word in names.items() if error.lacks(word)} - missing
            if not refused:
                raise
            missing |= refused
            if queries.CONSOLE_PAGES in refused:
                log.warning(
                    "%s is older than 0.77 and returns only the end of a console; longer ones are mirrored in part",
                    server.base_url,
                )


def _page(position: Position, answer: dict[str, Any]) -> Answer:
    connection = answer["logLines"] or {}
    lines = _lines(connection, position.first)
    behind = lines[-1][0] + 1 if lines else position.first
    info = connection.get("pageInfo") or {}
    after = info.get("endCursor")
    # A page that is cut because of its size reports that nothing follows.
    short = behind < (answer.get("logLineCount") or 0)
    onward = bool(lines) and after not in (None, position.after)
    more = onward and bool(info.get("hasNextPage") or short)
    stuck = short and not lines
    first = lines[0][0] if lines else position.first
    head = next(iter(_lines(answer.get("head") or {}, 0)), None)
    # Lines may still follow an empty page that should not be empty.
    page = ConsolePage(position.run_id, first, lines, last=not more and not stuck, labels=_labels(connection))
    return Answer(page, Position(position.run_id, after, behind), head, more, stuck)


def _tail(position: Position, answer: dict[str, Any]) -> Answer:
    connection = answer["logLines"] or {}
    count = len(connection.get("edges") or ())
    lines = _lines(connection, max((answer.get("logLineCount") or 0) - count, 0))
    page = ConsolePage(position.run_id, lines[0][0] if lines else 0, lines, last=True, labels=_labels(connection))
    return Answer(
        page, Position(position.run_id, None, lines[-1][0] + 1 if lines else 0), None, more=False, stuck=False
    )


def _lines(connection: dict[str, Any], line: int) -> list[ConsoleLine]:
    """Return the lines with rising numbers: the server's, or the position where the server's number does not rise.

    After a resume the server's numbers may start again.
    """
    lines = []
    for edge in connection.get("edges") or ():
        node = edge["node"]
        number = node.get("number")
        line = max(line, number) if isinstance(number, int) else line
        lines.append((line, moment(node.get("timestamp")), node.get("level") or None, node.get("line") or ""))
        line += 1
    return lines


def _labels(connection: dict[str, Any]) -> list[str | None]:
    """Return the label of each line: which of several writers it is from."""
    return [edge["node"].get("label") for edge in connection.get("edges") or ()]
