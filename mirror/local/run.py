"""One run as its files tell it: records are applied one by one, and what they add up to can be kept and gone on from.

Source of the records' fields and of what they mean: wandb/proto/wandb_internal.proto, core/internal/runupserter,
runsummary and runconfig in github:wandb/wandb. Requests, such as partial history, are never written to these files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import translate
from typing import Any

import orjson

from mirror.local import wire
from mirror.local.beside import fill
from mirror.local.console import Console
from mirror.local.items import items, path
from mirror.local.tree import Tree, flat
from mirror.local.values import LONG, Unreadable, check_name, shown
from mirror.local.values import value as value_of
from mirror.remote.lenient import dumps, loads, numbers
from mirror.store.records import RunRecord

HISTORY, SUMMARY, OUTPUT, CONFIG, STATS, METRIC, OUTPUT_RAW = 2, 3, 4, 5, 7, 12, 13
RUN, EXIT, PREEMPTING, ENVIRONMENT, OUTPUT_LOGGER = 17, 18, 23, 26, 27
"""The records that are read, by their number in `Record`."""

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

_STEP = b'"_step":'
_NO_VALUE = b"{}"
"""An object without members has no leaf, so the client sends none of it."""


_LATEST = 32_503_680_000
"""Seconds up to the year 3000; what lies behind is no time."""


_STEPS = 2**63
"""Steps are less than this, as the store and the server count them."""


class BeginsAgain(Exception):
    """A later start of the run takes the place of all earlier ones."""


class OutOfOrder(Exception):
    """History of an earlier start came after a later start was read."""


@dataclass
class Lines:
    """History and system metric lines as the server would hand them out, gathered until they are taken.

    `notes` tells how the file's start was placed among the others, `errors` which values no reader takes.
    """

    history: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass
class Reading:
    """What a run's records add up to so far. `exit_code` is None while there is no exit record.

    `cut` is the step behind which the history read before is to go, where the run was rewound to it. `start` tells
    what the newest start of the run is: "first", "resume" for one that says that it goes on, else "unknown".
    `moved` tells that steps of some start were shifted, `last_time` the newest time that any record names. `latest` has
    the last value of each history key, for a summary that is not there; `unsummarised` the keys and globs that are
    defined to have none. `console` is None where it is not mirrored. `info` is what the environment record tells,
    `beside` what lies beside the file, `log` how far its `output.log` is read.
    """

    texts: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    git_commit: str | None = None
    started_at: str | None = None
    first_started_at: str | None = None
    config: Tree = field(default_factory=Tree)
    summary: Tree = field(default_factory=Tree)
    exit_code: int | None = None
    runtime: int = 0
    events: int = 0
    last_step: int | None = None
    last_time: float | None = None
    cut: int | None = None
    start: str = "first"
    moved: bool = False
    preempting: bool = False
    latest: Tree = field(default_factory=Tree)
    unsummarised: list[str] = field(default_factory=list)
    console: Console | None = None
    info: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)
    log: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """All of it as JSON text."""
        plain = {name: value for name, value in vars(self).items() if not isinstance(value, Tree | Console)}
        for name in _TREES:
            leaves = getattr(self, name).leaves
            if name == "latest":
                # What the summary holds is never asked for here.
                leaves = {place: text for place, text in leaves.items() if not self.summary.holds(place)}
            plain[name] = [[list(place), text.decode("utf-8", "replace")] for place, text in leaves.items()]
        if self.console is not None:
            plain["console"] = self.console.as_json()
        return dumps(plain)

    @classmethod
    def from_json(cls, text: str) -> Reading:
        """The same from its JSON text."""
        values = loads(text)
        for name in _TREES:
            tree = Tree()
            for place, leaf in values.get(name, ()):
                tree.set(tuple(place), leaf.encode("utf-8", "replace"))
            values[name] = tree
        if values.get("console") is not None:
            values["console"] = Console.from_json(values["console"])
        return cls(**values)


_TREES = ("config", "summary", "latest")


def apply(reading: Reading, record: bytes, lines: Lines, shift: int | None, *, older: bool = False) -> int | None:
    """Take in one record; history and system metric lines go to `lines`. Gives the shift of steps of its file.

    The shift is None until the file's first history line: then it is what lets the steps of a run that was resumed
    offline, where counting begins at 0 again, go on behind the steps of its former file. Raises BeginsAgain where
    there a start takes the place of the former ones, OutOfOrder for a line of an `older` start, and Malformed or
    IndexError for what is no record.
    """
    for number, body in wire.fields(record):
        if not isinstance(body, bytes):
            continue
        if number == HISTORY:
            shift = _history(reading, body, lines, shift, older=older)
        elif number == SUMMARY:
            _summary(reading, body)
        elif number == CONFIG:
            _config(reading, body, lines)
        elif number == METRIC:
            _metric(reading, body)
        elif number == STATS:
            _stats(reading, body, lines)
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
    """The run as the mirror keeps it. Values of its summary that no reader takes are left out, and told in `errors`."""
    texts = reading.texts
    beside = reading.beside
    config = reading.config.document()
    fill(config, {key: value for key, value in beside.get("config", {}).items() if key not in config})
    meta = config.pop("_wandb", None)
    config.pop("wandb_version", None)
    told: list[str] = []
    summary = numbers(_summary_of(reading, told))
    if errors is not None:
        errors += told
    fill(summary, numbers(beside.get("summary", {})))
    if reading.moved and "_step" in summary:
        summary["_step"] = reading.last_step
    created = _moment(reading.first_started_at)
    heartbeat = datetime.fromtimestamp(reading.last_time, UTC).replace(tzinfo=None) if reading.last_time else created
    duration = reading.runtime or _number(reading.summary, "_wandb", "runtime") or _number(reading.summary, "_runtime")
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
    """The summary that the records tell, or else the last value of each key.

    Old clients wrote their summary at the end, so a run that was killed has none, or no more than its script put there.
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
        if place not in missing or (text != _NO_VALUE and not none.match(".".join(place))):
            both.set(place, text)
    return both.document(errors)


def _run(reading: Reading, body: bytes, lines: Lines) -> None:
    """A run record: the first makes the run, later ones change what they name."""
    tags = []
    first = not reading.texts
    began = reading.started_at
    resumed = False
    branch = None
    for number, value in wire.fields(body):
        if not isinstance(value, bytes):
            resumed |= number in (_STARTING_STEP, _RESUMED, _RESUME) and value > 0
            continue
        if not value:
            continue
        if number in _TEXTS:
            reading.texts[_TEXTS[number]] = _text(value)
        elif number == _TAG:
            tags.append(_text(value))
        elif number == _CONFIG:
            _config(reading, value, lines)
        elif number == _SUMMARY:
            _summary(reading, value)
        elif number == _GIT:
            reading.git_commit = _texts(value).get(2) or reading.git_commit
        elif number == _START:
            began = _timestamp(value)
        elif number == _BRANCH:
            branch = _branch(value)
    reading.tags = tags or reading.tags
    if began is None or order(began) <= order(reading.started_at):
        return
    # The first process of the run, or another one that goes on with it or begins it again.
    _seen(reading, float(began))
    reading.exit_code, reading.preempting = None, False
    if reading.console is not None:
        reading.console.begin(reading.log.get("lines", 0) + reading.log.get("open", 0))
    reading.log = {}
    reading.started_at = began
    reading.first_started_at = reading.first_started_at or began
    rewound = branch is not None and branch[0] == reading.texts.get("run_id")
    reading.start = "first" if first else "resume" if resumed or rewound else "unknown"
    if rewound and branch is not None:
        reading.cut = reading.last_step = branch[1]


def order(started_at: str | None) -> tuple[int, int]:
    """Sorts the starts of a run by their time."""
    seconds, _, nanos = (started_at or "").partition(".")
    return int(seconds or -1), int(nanos or 0)


def _branch(message: bytes) -> tuple[str, int] | None:
    """The run and the step from which a run goes on: its own when it was rewound, another's when it was forked."""
    values = {number: value for number, value in wire.fields(message) if isinstance(value, bytes)}
    step = wire.double(values.get(2, bytes(8)))
    if values.get(3, b"_step") != b"_step" or not -1 <= step < _STEPS:
        return None
    return _text(values.get(1, b"")), int(step)


def _config(reading: Reading, body: bytes, lines: Lines) -> None:
    for raw, text in items(body, _UPDATE).items():
        place = path(raw)
        try:
            check_name(*place)
            leaves = list(flat(place, value_of(text)))
        except Unreadable as error:
            lines.errors.append(f"config {shown('.'.join(place))}: {error}")
            continue
        for names, leaf in leaves:
            reading.config.set(names, dumps(leaf).encode("utf-8", "replace"))
    for raw in items(body, _REMOVE):
        reading.config.remove(path(raw))


def _metric(reading: Reading, body: bytes) -> None:
    """A metric that is defined to have no summary, or to have one."""
    found = {number: value for number, value in wire.fields(body) if isinstance(value, bytes)}
    name = _text(found.get(1, b"")) or _text(found.get(2, b""))
    none = any(number == 6 and value for number, value in wire.fields(found.get(7, b"")))
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


_names: dict[bytes, bytes] = {}
_typed: set[bytes] = set()
_MOST_NAMES = 100_000


def _name(raw: bytes) -> bytes:
    """A key, dotted where it is nested, as the start of a member of a JSON object."""
    place = path(raw)
    name = orjson.dumps(".".join(place)) + b":"
    if len(_names) >= _MOST_NAMES:
        _names.clear()
        _typed.clear()
    _names[raw] = name
    if len(place) > 1 and place[-1] == "_type":
        _typed.add(name)
    return name


def _history(reading: Reading, body: bytes, lines: Lines, shift: int | None, *, older: bool) -> int:
    """A history record as one line. Nested keys are dotted, but for objects with a `_type`, which stay whole."""
    known = _names
    found = items(body)
    if len(body) > LONG:
        found = _sound(found, lines)
    members = {known.get(raw) or _name(raw): text for raw, text in found.items() if text != _NO_VALUE}
    if not _typed.isdisjoint(members):
        members = _with_objects(found)
    own = _step(body, members.get(_STEP))
    if own is None:
        step = 0 if reading.last_step is None else reading.last_step + 1
        shift = shift or 0
    else:
        if older:
            raise OutOfOrder
        if shift is None:
            shift = _shift(reading, own, lines)
        step = own + shift
    if step >= _STEPS:
        raise Unreadable(f"history step {shown(str(step))}: it is past 64 bits")
    reading.latest.update(found)
    members[_STEP] = str(step).encode()
    reading.last_step = step if reading.last_step is None else max(step, reading.last_step)
    if time := members.get(b'"_timestamp":'):
        _seen(reading, _float(time))
    # Sorted, since the client writes them in any order, and lines with the same order are parsed faster.
    text = b",".join([name + members[name] for name in sorted(members)])
    lines.history.append((b"{" + text + b"}").decode("utf-8", "replace"))
    return shift


def _sound(found: dict[bytes, bytes], lines: Lines) -> dict[bytes, bytes]:
    """The items of a line but for long ones that no reader takes."""
    for raw, text in [(raw, text) for raw, text in found.items() if len(text) > LONG]:
        try:
            value_of(text)
        except Unreadable as error:
            if path(raw) == ("_step",):
                raise Unreadable(f"history step {shown(text)}: it is no number of a step") from error
            lines.errors.append(f"history {shown('.'.join(path(raw)))}: {error}")
            del found[raw]
    return found


def _shift(reading: Reading, step: int, lines: Lines) -> int:
    """What is added to the steps of a file whose first one this is. Raises BeginsAgain.

    A start that does not say whether it goes on, as none did before 0.31, is judged by its steps.
    """
    last = reading.last_step
    if last is None or reading.start == "first":
        return 0
    if step > last:
        if reading.start == "unknown":
            lines.notes.append(f"it is taken to go on with the run's earlier start, since its steps do, from {step:,}")
        return 0
    if reading.start == "resume":
        reading.moved = True
        return last + 1 - step
    if step == 0:
        raise BeginsAgain
    reading.cut = reading.last_step = step - 1
    lines.notes.append(
        f"it is taken to go on from step {step:,} of the run's earlier start, whose later steps are dropped"
    )
    return 0


def _step(body: bytes, text: bytes | None) -> int | None:
    """The step that a record names as a value or by itself. None for a process of a run that several write to.

    Raises Unreadable for a value that is no step.
    """
    if text is not None:
        try:
            step = int(text) if text.isdigit() else int(float(text))
        except (ValueError, OverflowError):
            step = -1
        if not 0 <= step < _STEPS:
            raise Unreadable(f"history step {shown(text)}: it is no number of a step")
        return step
    for number, content in wire.fields(body):
        if number == 2 and isinstance(content, bytes):
            return next((wire.signed(num) for field, num in wire.fields(content) if isinstance(num, int)), 0)
    return None


def _with_objects(found: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The members of a line in which some objects stay whole."""
    tree: dict[str, Any] = {}
    for raw, text in found.items():
        if text == _NO_VALUE:
            continue
        place = tree
        *above, last = path(raw)
        for name in above:
            inner = place.get(name)
            if not isinstance(inner, dict):
                inner = place[name] = {}
            place = inner
        place[last] = text
    return dict(_members(tree, ""))


def _members(tree: dict[str, Any], prefix: str) -> list[tuple[bytes, bytes]]:
    members = []
    for name, value in tree.items():
        if isinstance(value, dict) and "_type" not in value:
            members += _members(value, f"{prefix}{name}.")
        else:
            members.append((orjson.dumps(f"{prefix}{name}") + b":", _json(value)))
    return members


def _json(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return b"{" + b",".join(orjson.dumps(name) + b":" + _json(entry) for name, entry in value.items()) + b"}"


def _stats(reading: Reading, body: bytes, lines: Lines) -> None:
    """System metrics as the line that the server is sent."""
    moment = next((value for number, value in wire.fields(body) if number == 2 and isinstance(value, bytes)), b"")
    members = {b'"system.' + orjson.dumps(path(raw)[-1])[1:] + b":": text for raw, text in items(body, 3).items()}
    seconds, nanos = _seconds(moment)
    began = _moment(reading.first_started_at)
    at = seconds + nanos / 1e9
    _seen(reading, at)
    members[b'"_timestamp":'] = repr(at).encode()
    if began is not None and abs(at) < _LATEST:
        runtime = (datetime(1970, 1, 1) + timedelta(seconds=at) - began).total_seconds()
        members[b'"_runtime":'] = repr(runtime).encode()
    members[b'"_wandb":'] = b"true"
    text = b",".join([name + members[name] for name in sorted(members)])
    lines.events.append((b"{" + text + b"}").decode("utf-8", "replace"))


def _output(reading: Reading, body: bytes) -> None:
    """Console output: 0, which is not written, is stderr."""
    found = dict(wire.fields(body))
    at = None
    if isinstance(time := found.get(2), bytes):
        seconds, nanos = _seconds(time)
        _seen(reading, seconds + nanos / 1e9)
        at = _moment(f"{seconds}.{nanos:09d}")
    text = found.get(3)
    if reading.console is not None and isinstance(text, bytes):
        reading.console.write(_text(text), at, None if found.get(1) else "error")


def _log(reading: Reading, body: bytes) -> None:
    """Lines that a script wrote to the log of the run itself."""
    for number, text in wire.fields(body):
        if reading.console is not None and number == 1 and isinstance(text, bytes):
            reading.console.add(_text(text), None)


def _seen(reading: Reading, seconds: float | None) -> None:
    """Note a time that a record names."""
    if seconds is not None and 0 < seconds < _LATEST:
        reading.last_time = max(seconds, reading.last_time or 0.0)


def _exit(reading: Reading, body: bytes) -> None:
    values = {number: value for number, value in wire.fields(body) if isinstance(value, int)}
    if values.get(3):
        # A secondary process of a shared run ended; the run goes on.
        return
    reading.exit_code = wire.signed(values.get(1, 0))
    reading.runtime = wire.signed(values.get(2, 0))


_INFO = {1: "os", 2: "python", 6: "program", 18: "gpu", 16: "cpu_count", 19: "gpu_count"}
_ARGS = 5


def _environment(reading: Reading, body: bytes) -> None:
    """How the run was started, under the names that `wandb-metadata.json` has."""
    args = []
    for number, value in wire.fields(body):
        if name := _INFO.get(number):
            reading.info[name] = _text(value) if isinstance(value, bytes) else value
        elif number == _ARGS and isinstance(value, bytes):
            args.append(_text(value))
        elif number == 9 and isinstance(value, bytes):
            git = _texts(value)
            reading.git_commit = reading.git_commit or git.get(2)
            reading.info["git"] = {name: git[n] for n, name in ((1, "remote"), (2, "commit")) if n in git}
        elif number == 12 and isinstance(value, bytes):
            reading.texts.setdefault("host", _text(value))
    if args:
        reading.info["args"] = args


def _texts(message: bytes) -> dict[int, str]:
    return {number: _text(value) for number, value in wire.fields(message) if isinstance(value, bytes) and value}


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _seconds(message: bytes) -> tuple[int, int]:
    """A google.protobuf.Timestamp as seconds and nanoseconds."""
    values = {number: wire.signed(value) for number, value in wire.fields(message) if isinstance(value, int)}
    return values.get(1, 0), values.get(2, 0)


def _timestamp(message: bytes) -> str:
    """The same as text that keeps all digits."""
    seconds, nanos = _seconds(message)
    return f"{seconds}.{nanos:09d}"


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    seconds, _, nanos = text.partition(".")
    if abs(int(seconds)) > _LATEST:
        return None
    return datetime(1970, 1, 1) + timedelta(seconds=int(seconds), microseconds=int(nanos) // 1000)


def _number(tree: Tree, *place: str) -> float | None:
    text = tree.leaves.get(place)
    return None if text is None else _float(text)


def _float(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value - value == 0 else None
