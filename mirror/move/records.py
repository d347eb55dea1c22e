"""The records of a run's `.wandb` file, made of what is mirrored of it.

Source of their fields and of what `wandb sync` does with them: wandb/proto/wandb_internal.proto, and
core/internal/runsync, runupserter, stream, filestream, runmetric and runconsolelogs in github:wandb/wandb.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from mirror.local import protobuf_writer as wire
from mirror.metrics import STEP
from mirror.protocol import METADATA
from mirror.snapshot.console import Line
from mirror.snapshot.document_keys import located
from mirror.snapshot.whole_runs import Step, Value, WholeRun
from mirror.wandb_json import dumps

_HISTORY, _SUMMARY, _FILES, _STATS, _METRIC, _OUTPUT_RAW, _RUN = 2, 3, 6, 7, 12, 13, 17
_EXIT, _HEADER, _PREEMPTING, _OUTPUT_LOGGER = 18, 21, 23, 27
"""The numbers, in `Record`, of the records that are written."""

_VALUE = wire.varint(16 << 3 | 2)
_NUM, _LIMIT = 1, 2**31
_STDOUT = 1
_END, _OTHER, _WANDB, _MEDIA = 1, 0, 1, 2

LIVE_ON = ("running", "pending", "crashed", "preempting", "preempted")
"""States of runs that get no end: a server marks a run without heartbeats as crashed or preempted by itself."""

MOST_LINE = 10 << 20
"""The client does not upload history lines of more bytes than this (`FileStreamMaxLineBytes`)."""


def header() -> bytes:
    """Return the record that every file starts with."""
    return wire.field(_HEADER, b"")


def run(one: WholeRun, started: datetime, *, keep_sweep: bool) -> bytes:
    """Return the record that creates the run, with its config.

    Unless `keep_sweep` is set, the sweep becomes a tag: servers refuse a run of a sweep that they do not have.
    """
    tags = one.tags
    if one.sweep and not keep_sweep:
        tags = (*tags, *([tag] if (tag := f"sweep:{one.sweep}") not in tags else []))
    config = dict(one.config)
    # `m` and `t` of the client's own part are made by the client that uploads the run.
    if own := {key: value for key, value in one.config_meta.items() if key not in ("m", "t")}:
        config["_wandb"] = own
    known = one.metadata.get("git")
    remote = known.get("remote") if isinstance(known, dict) else None
    git = wire.text(1, remote if isinstance(remote, str) else None) + wire.text(2, one.git_commit)
    body = b"".join(
        (
            wire.text(1, one.run_id),
            wire.text(2, one.project.entity),
            wire.text(3, one.project.project),
            wire.field(4, _items(1, config)),
            wire.text(6, one.group_name),
            wire.text(7, one.job_type),
            wire.text(8, one.name),
            wire.text(9, one.notes),
            *(wire.text(10, tag) for tag in tags),
            wire.text(12, one.sweep if keep_sweep else None),
            wire.text(13, one.host),
            wire.timestamp(17, started),
            wire.field(21, git) if git else b"",
        )
    )
    return wire.field(_RUN, body)


def summary(one: WholeRun) -> bytes:
    """Return the record with the whole summary."""
    return wire.field(_SUMMARY, _items(1, one.summary))


def _items(number: int, values: Mapping[str, Any]) -> bytes:
    return b"".join(
        wire.field(number, wire.text(1, key) + wire.field(16, dumps(value).encode("utf-8", "replace")))
        for key, value in values.items()
        if key
    )


def metrics(one: WholeRun, keys: Sequence[str]) -> Iterator[bytes]:
    """Yield the definitions of define_metric, which are listed in the config by field numbers of their record.

    A definition for a prefix of keys is followed by one for each of the run's `keys` that it covers, marked as such: a
    server that expands prefixes itself does not get them.
    """
    listed = [entry for entry in one.config_meta.get("m") or () if isinstance(entry, dict)]
    names = {entry.get("1") for entry in listed}
    globs = []
    for entry in listed:
        index = entry.get("5")
        x_key = entry.get("4")
        if x_key is None and isinstance(index, int) and 0 < index <= len(listed):
            x_key = listed[index - 1].get("1")
        rest = b"".join(
            (
                wire.text(4, x_key if isinstance(x_key, str) else None),
                *(wire.field(number, flags) for number in (6, 7) if (flags := _flags(entry.get(str(number))))),
                wire.integer(8, entry["8"]) if isinstance(entry.get("8"), int) else b"",
            )
        )
        if isinstance(name := entry.get("1"), str):
            yield wire.field(_METRIC, wire.text(1, name) + rest)
        elif isinstance(glob := entry.get("2"), str):
            yield wire.field(_METRIC, wire.text(2, glob) + rest)
            globs.append((glob.removesuffix("*"), rest))
    for key in keys:
        name = key.replace(".", "\\.")
        if key.startswith("_") or name in names:
            continue
        if covering := [found for found in globs if name.startswith(found[0])]:
            rest = max(covering, key=lambda found: len(found[0]))[1]
            yield wire.field(_METRIC, wire.text(1, name) + rest + wire.integer(10, 1))


def _flags(numbers: Any) -> bytes:
    listed = numbers if isinstance(numbers, list) else ()
    return b"".join(wire.integer(number, 1) for number in listed if isinstance(number, int))


def files(names: Iterable[str]) -> bytes | None:
    """Return the record that has these files of the folder `files` uploaded when the run ends; None without any."""
    listed = [
        wire.field(
            1,
            wire.text(1, name)
            + wire.integer(2, _END)
            + wire.integer(3, _MEDIA if name.startswith("media/") else _WANDB if name == METADATA else _OTHER),
        )
        for name in names
    ]
    return wire.field(_FILES, b"".join(listed)) if listed else None


class HistoryRecords:
    """Makes the records of a run's history. `too_long` counts rows that the client will not upload."""

    def __init__(self, one: WholeRun) -> None:
        self._summary = one.summary
        self._heads: dict[str, bytes] = {}
        self.too_long = 0

    def record(self, step: int, values: Sequence[Value]) -> bytes:
        """Return the record of one step. Keys are nested where the summary shows that they were logged nested."""
        heads = self._heads
        items = []
        for key, number, text in values:
            head = heads.get(key) or self._head(key)
            found = text.encode("utf-8", "replace") if text is not None else number_text(number)
            content = head + (_LENGTHS[size] if (size := len(found)) < 0x80 else wire.varint(size)) + found
            items.append(_ITEM + (_LENGTHS[size] if (size := len(content)) < 0x80 else wire.varint(size)) + content)
        own = str(step).encode()
        items.append(wire.field(1, _STEP_HEAD + wire.varint(len(own)) + own))
        body = b"".join(items)
        if len(body) > MOST_LINE:
            self.too_long += 1
        return wire.field(_HISTORY, body + wire.field(2, wire.integer(1, step)))

    def _head(self, key: str) -> bytes:
        """Return the start of an item, up to the length of its value."""
        path = (located(self._summary, key) if "." in key else None) or (key,)
        names = wire.text(1, key) if len(path) == 1 else b"".join(wire.field(2, name.encode()) for name in path)
        self._heads[key] = names + _VALUE
        return self._heads[key]


_ITEM = wire.varint(1 << 3 | 2)
_LENGTHS = [bytes((size,)) for size in range(0x80)]
"""Short lengths; a call of `varint` for each takes a fifth of the time of an export."""

_STEP_HEAD = wire.text(1, STEP) + _VALUE


def number_text(value: float) -> bytes:
    """Return a number as JSON, without a fraction if it has none; NaN and infinities as W&B spells them."""
    if value - value != 0:
        return b"NaN" if value != value else b"Infinity" if value > 0 else b"-Infinity"  # noqa: PLR0124
    if abs(value) < 2**53 and value.is_integer():
        return b"%d" % int(value)
    return repr(value).encode()


def started_at(one: WholeRun, first: Step | None) -> datetime:
    """Return the time from which `_runtime` counts: that of the first line of system metrics, else the creation.

    `wandb sync` computes `_runtime` of system metrics from it.
    """
    numbers = {value.key: value.number for value in first[1]} if first else {}
    stamp, runtime = numbers.get("_timestamp"), numbers.get("_runtime")
    if stamp is not None and runtime is not None and 0 < stamp < 32_503_680_000 and runtime - runtime == 0:
        return datetime(1970, 1, 1) + timedelta(seconds=stamp - runtime)
    return one.created_at or datetime(1970, 1, 1)


def stats(values: Sequence[Value]) -> bytes | None:
    """Return the record of one line of system metrics; None for a line without a time."""
    stamp = next((value.number for value in values if value.key == "_timestamp"), None)
    if stamp is None or not 0 < stamp < 32_503_680_000:
        return None
    items = b"".join(
        wire.field(
            3,
            wire.text(1, key.removeprefix("system."))
            + wire.field(16, number_text(number) if text is None else text.encode("utf-8", "replace")),
        )
        for key, number, text in values
        if not key.startswith("_")
    )
    at = datetime(1970, 1, 1) + timedelta(seconds=stamp)
    return wire.field(_STATS, wire.timestamp(2, at) + items)


def console(line: Line) -> bytes:
    """Return the record of a console line.

    Output of a terminal has a time and a stream; what a terminal would change or drop, such as an empty line, is
    written as a line of the run's own log, which has neither.
    """
    plain = line.text.isprintable() and 0 < len(line.text) <= 4096
    if not plain:
        return wire.field(_OUTPUT_LOGGER, wire.field(1, line.text.encode("utf-8", "replace")))
    body = b"" if line.level == "error" else wire.integer(1, _STDOUT)
    if line.logged_at is not None:
        body += wire.timestamp(2, line.logged_at)
    return wire.field(_OUTPUT_RAW, body + wire.text(3, f"{line.text}\n"))


def end(one: WholeRun) -> Iterator[bytes]:
    """Yield the records that end the run, with the exit code of its state."""
    if one.state.startswith("preempt"):
        yield wire.field(_PREEMPTING, b"")
    own = one.summary.get("_wandb")
    runtime = own.get("runtime") if isinstance(own, dict) else None
    seconds = int(runtime) if isinstance(runtime, int | float) and 0 <= runtime < _LIMIT else int(one.duration_s or 0)
    code = wire.integer(1, 0 if one.state in ("finished", *LIVE_ON) else 1)
    yield wire.field(_EXIT, code + wire.integer(2, seconds) + wire.integer(3, one.state in LIVE_ON))


def numbered(number: int, record: bytes) -> bytes:
    """Return a record with its number in the file, from 1."""
    return wire.integer(_NUM, number) + record


def documents(one: WholeRun) -> dict[str, str]:
    """Return the documents that the client keeps beside the file, by name.

    A server dates a run by its upload, so the metadata file keeps the time at which it was created.
    """
    import yaml

    config = {key: {"value": value} for key, value in one.config.items()}
    started = {} if one.created_at is None else {"startedAt": f"{one.created_at.isoformat()}Z"}
    return {
        "config.yaml": yaml.safe_dump(config, allow_unicode=True, sort_keys=False),
        "wandb-summary.json": dumps(one.summary),
        METADATA: json.dumps({**started, **one.metadata}, indent=2),
    }
