"""The tools: their descriptions for hosts, and the functions that answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.errors import UsageError
from mirror.mcp import compare, diagnose, histories, projects, runs
from mirror.mcp.arguments import (
    CHARS,
    FILTER,
    OFFSET,
    RUNS,
    Argument,
    checked,
    text,
    texts,
    whole,
)
from mirror.mcp.ask import Ask
from mirror.mcp.metrics import VALUES
from mirror.snapshot.paths import nearest_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PROJECT = '"entity/project"'
ORDER = 'Such as "-summary.val/acc" or "+config.lr,-created_at"; default newest first'
SELECT = "Columns: of runs, config.KEY, summary.KEY; default: names, state, and keys in which the runs differ"


class Tool(Struct, frozen=True):
    """A tool: what it is for, its arguments, and the function that answers."""

    purpose: str
    arguments: Mapping[str, Argument]
    answer: Callable[[Ask], str]

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        required = [name for name, argument in self.arguments.items() if argument.required]
        return {
            "type": "object",
            "properties": {name: argument.described() for name, argument in self.arguments.items()},
            **({"required": required} if required else {}),
        }


TOOLS: Mapping[str, Tool] = {
    "list_projects": Tool(
        "Mirrored W&B projects with numbers of runs and the age of the data. Start here.",
        {"match": text('Such as "my-team/*"'), "offset": OFFSET, "max_chars": CHARS},
        projects.list_projects,
    ),
    "describe_project": Tool(
        "What a project holds: runs by state, groups and tags; all keys of config.*, summary.* and history (no prefix)"
        " with type, number of runs, range or values. Use it before filters and SQL, to know the keys.",
        {
            "project": text(PROJECT, required=True),
            "keys": texts('Only these keys or globs, such as "config.*"'),
            "offset": OFFSET,
            "max_chars": CHARS,
        },
        projects.describe_project,
    ),
    "find_runs": Tool(
        "Runs that match a filter, in order, with the columns you name. limit=0 only counts.",
        {
            "project": text(f'{PROJECT} or "entity/*"; default all'),
            "filter": FILTER,
            "order": text(ORDER),
            "select": texts(SELECT),
            "limit": whole("Most runs", 20, 0, 1000),
            "offset": OFFSET,
            "max_chars": CHARS,
        },
        runs.find_runs,
    ),
    "query": Tool(
        "One read-only DuckDB SQL statement over the relations runs, config_values, summary_values, history,"
        " history_keys, console and others (resource mirror://schema lists all). All digits are returned."
        " For what the other tools do not answer: joins, aggregates, windows of a history.",
        {
            "sql": text("SELECT, WITH, FROM, DESCRIBE, SUMMARIZE or EXPLAIN", required=True),
            "limit": whole("Most rows", 100, 1, 10_000),
            "max_chars": CHARS,
        },
        runs.query,
    ),
    "get_history": Tool(
        "Curves of metrics of some runs: x and value. Long ones are reduced to few points that keep minima and maxima,"
        " with the exact number of values given.",
        {
            "runs": texts(RUNS, required=True),
            "keys": texts('History keys or globs, such as "val/*"; none: names them'),
            "x": text("Key of the x axis; default: that of define_metric, else the step"),
            "points": whole("Most points of a curve", 40, 2, 2000),
            "max_chars": CHARS,
        },
        histories.get_history,
    ),
    "compare_runs": Tool(
        "Which is better, and is it more than chance? Groups runs by group_by, default by equal config apart from"
        " seeds, and gives n, mean, sd and 95% intervals of each metric, and Welch's intervals of the differences."
        " For a few named runs also every value in which they differ.",
        {
            "runs": texts(f"{RUNS}; or give project and filter"),
            "project": text(PROJECT),
            "filter": FILTER,
            "group_by": texts(
                "config.KEY, group, job_type, state, sweep, tags, user, host, git_commit; many numbers become ranges"
            ),
            "metrics": texts("Keys of the summary, or of the history with value=min, max, last"),
            "value": text("Which value of a metric", "summary", choices=VALUES),
            "goal": text(
                "Whether min or max is better; default: by define_metric, sweep or name", choices=("min", "max")
            ),
            "baseline": text("The group that others are compared with; default: the one with the best mean"),
            "max_chars": CHARS,
        },
        compare.compare_runs,
    ),
    "diagnose_run": Tool(
        "Why did a run fail, stall or diverge? Looks for NaN, divergence, spikes, plateaus, gaps in steps and pauses,"
        " and shows the end of the console or its last traceback.",
        {
            "run": text(RUNS, required=True),
            "console_lines": whole("Last lines of the console without a traceback", 15, 0, 400),
            "max_chars": CHARS,
        },
        diagnose.diagnose_run,
    ),
}


def answer(connection: DuckDBPyConnection, name: str, given: Mapping[str, Any], entity: str | None = None) -> str:
    """The answer of a tool. Raises a MirrorError of one line, which names arguments as agents know them."""
    tool = TOOLS.get(name)
    if tool is None:
        raise UsageError(f"there is no tool {name}; {nearest_of(name, list(TOOLS))}")
    return tool.answer(Ask(connection, checked(name, tool.arguments, given), entity))


def question(connection: DuckDBPyConnection, asked: Mapping[str, Any], _lists: Mapping[tuple[str, str], bool]) -> bytes:
    """The question that a worker answers: `tool`, `arguments` and `entity`; the text of the answer."""
    return answer(connection, asked["tool"], asked["arguments"], asked["entity"]).encode()


def in_words_of_tools(message: str) -> str:
    """An error message in which options of the command line are named as arguments."""
    return re.sub(r"--([a-z]+)-?([a-z]*)(?=[ :;,.]|$)", lambda at: "_".join(filter(None, at.groups())), message)
