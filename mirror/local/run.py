"""One run according to its files: records are applied one by one to a state that can be stored and continued.

Source of the records' fields and of what they mean: wandb/proto/wandb_internal.proto, core/internal/runupserter,
runsummary and runconfig in github:wandb/wandb. Requests, such as partial history, are never written to these files.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from fnmatch import translate
from typing import Any

from mirror.local import protobuf
from mirror.local.beside import fill
from mirror.local.lines import NO_VALUE, history, stats
from mirror.local.protobuf_items import items, path
from mirror.local.reading import (
    STEPS,
    Lines,
    Reading,
    leaf,
    moment,
    note_time,
    order,
    seconds_of,
    text_of,
    texts_of,
    timestamp,
)
from mirror.local.tree import Tree, flat
from mirror.local.values import Unreadable, check_name, shown
from mirror.local.values import value as value_of
from mirror.metrics import STEP
from mirror.store.records import RunRecord
from mirror.wandb_json import dumps, numbers

HISTORY, SUMMARY, OUTPUT, CONFIG, STATS, METRIC, OUTPUT_RAW = 2, 3, 4, 5, 7, 12, 13
RUN, EXIT, PREEMPTING, ENVIRONMENT, OUTPUT_LOGGER = 17, 18, 23, 26, 27
"""The numbers, in `Record`, of the records that are read."""

_TEXTS = {
    1: "run_id",
    2: "entity",
    3: "project",
    6: "group_name",
    7: "job_type",
    8: "name",
    9: "notes",
    12: "sweep",
    13: "host",
}
_TAG, _CONFIG, _SUMMARY, _STARTING_STEP, _START, _RESUMED, _GIT, _BRANCH, _RESUME = 10, 4, 5, 14, 17, 18, 21, 23, 24
_UPDATE, _REMOVE = 1, 2


def apply(reading: Reading, record: bytes, lines: Lines, shift: int | None, *, older: bool = False) -> int | None:
    """Apply one record; history and system metric lines are added to `lines`. Returns the shift of the file's steps.

    The shift is None until the file's first history line. Steps of a run that was resumed offline start at 0 again; the
    shift makes them continue after the steps of the earlier file. Raises BeginsAgain if a start replaces the earlier
    ones, OutOfOrder for a line of an `older` start, and Malformed or IndexError for what is not a record.
    """
    for number, body in protobuf.fields(record):
        if not isinstance(body, bytes):
            continue
        if number == HISTORY:
            shift = history(reading, body, lines, shift, older=older)
        elif number == SUMMARY:
            _summary(reading, body)
        elif number == CONFIG:
            _config(reading, body, lines)
        elif number == METRIC:
            _metric(reading, body)
        elif number == STATS:
            stats(reading, body, lines)
        elif number in (OUTPUT, OUTPUT_RAW):
            _output(reading, body)
        elif number == OUTPUT_LOGGER:
            _log(reading, body)
        elif number == RUN:
            _run(reading, body, lines)
        elif number == EXIT:
            _exit(reading, body)
        elif number == PREEMPTING:
            reading.preempting = True
        elif number == ENVIRONMENT:
            _environment(reading, body)
    return shift


def record(reading: Reading, entity: str, project: str, state: str, errors: list[str] | None = None) -> RunRecord:
    """Return the run's record. Values of its summary that cannot be read are left out, and reported in `errors`."""
    texts = reading.texts
    beside = reading.beside
    config = reading.config.document()
    fill(config, {key: value for key, value in beside.get("config", {}).items() if key not in config})
    meta = config.pop("_wandb", None)
    config.pop("wandb_version", None)
    unreadable: list[str] = []
    summary = numbers(_summary_of(reading, unreadable))
    if errors is not None:
        errors += unreadable
    fill(summary, numbers(beside.get("summary", {})))
    if reading.moved and STEP in summary:
        summary[STEP] = reading.last_step
    created = moment(reading.first_started_at)
    heartbeat = datetime.fromtimestamp(reading.last_time, UTC).replace(tzinfo=None) if reading.last_time else created
    duration = reading.runtime or leaf(reading.summary, "_wandb", "runtime") or leaf(reading.summary, "_runtime")
    return RunRecord(
        entity=entity,
        project=project,
        run_id=texts["run_id"],
        storage_id="",
        name=texts.get("name") or texts["run_id"],
        state=state,
        created_at=created,
        heartbeat_at=heartbeat,
        updated_at=heartbeat,
        duration_s=float(duration) if duration else None,
        username=None,
        group_name=texts.get("group_name"),
        job_type=texts.get("job_type"),
        sweep=texts.get("sweep"),
        notes=texts.get("notes"),
        description=None,
        tags=tuple(reading.tags),
        git_commit=reading.git_commit or beside.get("git_commit"),
        host=texts.get("host") or beside.get("host"),
        url=None,
        config=config,
        config_meta=meta,
        summary=summary,
        info=beside.get("info") or reading.info or None,
    )


def _summary_of(reading: Reading, errors: list[str]) -> dict[str, Any]:
    """Return the summary of the records, completed by the last value of each key if the run did not exit.

    Old clients wrote their summary at the end, so a killed run has none, or only what its script put there.
    """
    summary = reading.summary
    if summary.leaves and reading.exit_code is not None:
        return summary.document(errors)
    missing = {place: text for place, text in reading.latest.leaves.items() if not summary.holds(place)}
    if not missing:
        return summary.document(errors)
    both = Tree()
    none = re.compile("|".join(translate(glob) for glob in reading.unsummarised) or r"(?!)")
    for place, text in [*summary.leaves.items(), *missing.items()]:
        if place not in missing or (text != NO_VALUE and not none.match(".".join(place))):
            both.set(place, text)
    return both.document(errors)


def _run(reading: Reading, body: bytes, lines: Lines) -> None:
    """Apply a run record: the first creates the run, later ones change the fields that they have."""
    tags = []
    first = not reading.texts
    started_at = reading.started_at
    resumed = False
    branch = None
    for number, value in protobuf.fields(body):
        if not isinstance(value, bytes):
            resumed |= number in (_STARTING_STEP, _RESUMED, _RESUME) and value > 0
            continue
        if not value:
            continue
        if number in _TEXTS:
            reading.texts[_TEXTS[number]] = text_of(value)
        elif number == _TAG:
            tags.append(text_of(value))
        elif number == _CONFIG:
            _config(reading, value, lines)
        elif number == _SUMMARY:
            _summary(reading, value)
        elif number == _GIT:
            reading.git_commit = texts_of(value).get(2) or reading.git_commit
        elif number == _START:
            started_at = timestamp(value)
        elif number == _BRANCH:
            branch = _branch(value)
    reading.tags = tags or reading.tags
    if started_at is None or order(started_at) <= order(reading.started_at):
        return
    # The first process of the run, or another one that resumes it or starts it again.
    note_time(reading, float(started_at))
    reading.exit_code, reading.preempting = None, False
    if reading.console is not None:
        reading.console.begin(reading.log.get("lines", 0) + reading.log.get("open", 0))
    reading.log = {}
    reading.started_at = started_at
    reading.first_started_at = reading.first_started_at or started_at
    rewound = branch is not None and branch[0] == reading.texts.get("run_id")
    reading.start = "first" if first else "resume" if resumed or rewound else "unknown"
    if rewound and branch is not None:
        reading.cut = reading.last_step = branch[1]


def _branch(message: bytes) -> tuple[str, int] | None:
    """Return the run and step that a run continues: its own if it was rewound, another's if it was forked."""
    values = {number: value for number, value in protobuf.fields(message) if isinstance(value, bytes)}
    step = protobuf.double(values.get(2, bytes(8)))
    if values.get(3, b"_step") != b"_step" or not -1 <= step < STEPS:
        return None
    return text_of(values.get(1, b"")), int(step)


def _config(reading: Reading, body: bytes, lines: Lines) -> None:
    for raw, text in items(body, _UPDATE).items():
        place = path(raw)
        try:
            check_name(*place)
            leaves = list(flat(place, value_of(text)))
        except Unreadable as error:
            lines.errors.append(f"config {shown('.'.join(place))}: {error}")
            continue
        for names, entry in leaves:
            reading.config.set(names, dumps(entry).encode("utf-8", "replace"))
    for raw in items(body, _REMOVE):
        reading.config.remove(path(raw))


def _metric(reading: Reading, body: bytes) -> None:
    """Apply a metric record, which defines whether a key has a summary."""
    found = {number: value for number, value in protobuf.fields(body) if isinstance(value, bytes)}
    name = text_of(found.get(1, b"")) or text_of(found.get(2, b""))
    none = any(number == 6 and value for number, value in protobuf.fields(found.get(7, b"")))
    if name:
        glob = name if 1 not in found else "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
        reading.unsummarised = [known for known in reading.unsummarised if known != glob] + [glob] * none


def _summary(reading: Reading, body: bytes) -> None:
    others: set[int] = set()
    reading.summary.update(items(body, _UPDATE, others))
    if others:
        for raw in items(body, _REMOVE):
            place = path(raw)
            reading.summary.remove(place)
            reading.latest.remove(place)


def _output(reading: Reading, body: bytes) -> None:
    """Apply console output. The stream 0, a default that is not written, is stderr."""
    found = dict(protobuf.fields(body))
    at = None
    if isinstance(time := found.get(2), bytes):
        seconds, nanos = seconds_of(time)
        note_time(reading, seconds + nanos / 1e9)
        at = moment(f"{seconds}.{nanos:09d}")
    text = found.get(3)
    if reading.console is not None and isinstance(text, bytes):
        reading.console.write(text_of(text), at, None if found.get(1) else "error")


def _log(reading: Reading, body: bytes) -> None:
    """Apply lines that a script wrote to the run's own log."""
    for number, text in protobuf.fields(body):
        if reading.console is not None and number == 1 and isinstance(text, bytes):
            reading.console.add(text_of(text), None)


def _exit(reading: Reading, body: bytes) -> None:
    values = {number: value for number, value in protobuf.fields(body) if isinstance(value, int)}
    if values.get(3):
        # A secondary process of a shared run ended; the run continues.
        return
    reading.exit_code = protobuf.signed(values.get(1, 0))
    reading.runtime = protobuf.signed(values.get(2, 0))


_INFO = {1: "os", 2: "python", 6: "program", 18: "gpu", 16: "cpu_count", 19: "gpu_count"}
_ARGS = 5


def _environment(reading: Reading, body: bytes) -> None:
    """Apply an environment record, with the names of `wandb-metadata.json`."""
    args = []
    for number, value in protobuf.fields(body):
        if name := _INFO.get(number):
            reading.info[name] = text_of(value) if isinstance(value, bytes) else value
        elif number == _ARGS and isinstance(value, bytes):
            args.append(text_of(value))
        elif number == 9 and isinstance(value, bytes):
            git = texts_of(value)
            reading.git_commit = reading.git_commit or git.get(2)
            reading.info["git"] = {name: git[n] for n, name in ((1, "remote"), (2, "commit")) if n in git}
        elif number == 12 and isinstance(value, bytes):
            reading.texts.setdefault("host", text_of(value))
    if args:
        reading.info["args"] = args
