"""What the writer makes is what the official client's own library reads, at every boundary of a block."""

from __future__ import annotations

import io
from datetime import datetime

import msgspec
import pytest
from wandb.proto import wandb_internal_pb2 as pb

from mirror.local import blocks, protobuf_writer
from mirror.local.block_writer import BlockWriter
from mirror.move import records
from mirror.snapshot.paths import Project
from mirror.snapshot.whole_runs import Value, WholeRun
from tests.local.kit import HEADER, framed
from tests.move.world import NOON

BLOCK = blocks.BLOCK


@pytest.mark.parametrize("left", range(-8, 9))
def test_records_are_framed_as_the_client_frames_them(left):
    """A record that ends near the end of a block, then an empty one, a short one, and one of three blocks."""
    payloads = [b"a" * (BLOCK - len(HEADER) - blocks.PIECE_HEADER - left), b"", b"b", b"c" * (3 * BLOCK), b"d"]
    stream = io.BytesIO()
    writer = BlockWriter(stream)
    for payload in payloads:
        writer.write(payload)
    assert stream.getvalue() == HEADER + framed(payloads, start=len(HEADER))
    read = blocks.records(stream, 0, len(stream.getvalue()), blocks.Tally())
    assert [one.payload for one in read] == payloads


@pytest.mark.parametrize("value", [0, 1, 127, 128, 2**31 - 1, 2**63 - 1, -1, -(2**63)])
def test_integers_are_read_back(value):
    assert pb.HistoryStep.FromString(protobuf_writer.integer(1, value)).num == value


def test_times_and_texts_are_read_back():
    at = datetime(1969, 12, 31, 23, 59, 59, 250_000)
    read = pb.RunRecord.FromString(protobuf_writer.timestamp(17, at) + protobuf_writer.text(9, "ü\ud800"))
    assert (read.start_time.ToDatetime(), read.notes) == (at, "ü?")


def test_a_prefix_of_define_metric_is_followed_by_the_keys_that_it_covers():
    """A server that does not expand prefixes itself needs them; the client skips them for one that does."""
    run = whole_run(config_meta={"m": [{"1": "epoch"}, {"2": "val/*", "5": 1, "6": [1]}, {"1": "val/own"}]})
    read = [
        pb.Record.FromString(one).metric for one in records.metrics(run, ["_step", "loss", "val/acc.top", "val/own"])
    ]
    assert [(one.name, one.glob_name, one.step_metric, one.expanded_from_glob) for one in read] == [
        ("epoch", "", "", False),
        ("", "val/*", "epoch", False),
        ("val/own", "", "", False),
        ("val/acc\\.top", "", "epoch", True),
    ]


def test_definitions_of_another_form_are_left_out():
    run = whole_run(config_meta={"m": ["text", {"1": 7}, {"2": None}, {"1": "a", "5": 99, "6": "x", "8": "y"}]})
    assert [pb.Record.FromString(one).metric for one in records.metrics(run, [])] == [pb.MetricRecord(name="a")]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (float("nan"), b"NaN"),
        (float("-inf"), b"-Infinity"),
        (3.0, b"3"),
        (2.0**53, b"9007199254740992.0"),
        (1e300, b"1e+300"),
        (0.1, b"0.1"),
    ],
)
def test_numbers_are_written_as_the_client_writes_them(number, text):
    assert records.number_text(number) == text


def test_a_row_is_nested_where_the_summary_is():
    made = records.HistoryRecords(whole_run(summary={"n": {"a": 1}, "m.b": 1}))
    read = pb.Record.FromString(
        made.record(7, [Value("n.a", 1.0, None), Value("m.b", 2.0, "2"), Value("x.y", 3.0, None)])
    )
    items = [(list(item.nested_key) or item.key, item.value_json) for item in read.history.item]
    assert items == [(["n", "a"], "1"), ("m.b", "2"), ("x.y", "3"), ("_step", "7")]
    assert read.history.step.num == 7


def test_a_sweep_is_a_tag_unless_it_is_to_be_kept():
    """Servers refuse a run of a sweep that they do not have."""
    run = whole_run(sweep="sw1", tags=("x",))
    tagged, kept = (pb.Record.FromString(records.run(run, NOON, keep_sweep=keep)).run for keep in (False, True))
    assert (tagged.sweep_id, list(tagged.tags)) == ("", ["x", "sweep:sw1"])
    assert (kept.sweep_id, list(kept.tags)) == ("sw1", ["x"])
    again = whole_run(sweep="sw1", tags=("sweep:sw1",))
    assert list(pb.Record.FromString(records.run(again, NOON, keep_sweep=False)).run.tags) == ["sweep:sw1"]


@pytest.mark.parametrize(
    ("state", "code", "open_end", "preempting"),
    [
        ("finished", 0, False, False),
        ("failed", 1, False, False),
        ("killed", 1, False, False),
        ("crashed", 0, True, False),
        ("running", 0, True, False),
        ("preempted", 0, True, True),
    ],
)
def test_a_state_is_an_exit_code_or_no_end(state, code, open_end, preempting):
    found = [pb.Record.FromString(one) for one in records.end(whole_run(state=state, duration_s=7.5))]
    assert [one.WhichOneof("record_type") for one in found] == ["preempting"] * preempting + ["exit"]
    assert (found[-1].exit.exit_code, found[-1].exit.not_complete, found[-1].exit.runtime) == (code, open_end, 7)


def whole_run(**fields):
    """A run with these fields and no others."""
    names = {field.name: None for field in msgspec.structs.fields(WholeRun)}
    empty = {"project": Project("team", "p"), "run_id": "r1", "state": "finished", "tags": ()}
    documents = {"config": {}, "config_meta": {}, "summary": {}, "metadata": {}}
    return WholeRun(**{**names, **empty, **documents, **fields})
