"""Several segments as one: stretch by stretch, or sorted where that does not fit; the values are the same."""

from __future__ import annotations

import random

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror.store import segment_merge, segment_writer, segments, staging
from mirror.store.names import literal
from mirror.store.segment_merge import Source, Unsuitable
from tests.store.kit import PROJECT, curve, opened, read, run, settle, write

SHAPE = {"run_id": pa.string(), "key": pa.string(), "step": pa.int64(), "value": pa.float64(), "text": pa.string()}


def segment(path, rows):
    """Rows of (run_id, key, step, value, text) in a file, in order."""
    rows = sorted(rows, key=lambda row: (row[1], row[0], row[2]))
    columns = zip(*rows, strict=True)
    table = pa.table({name: pa.array(c, kind) for (name, kind), c in zip(SHAPE.items(), columns, strict=True)})
    pq.write_table(table, path, row_group_size=700)
    return path


def values(run_id, key, steps):
    return [
        (run_id, key, step, None if step % 97 == 0 else step / 7, '"ü"' if step % 97 == 0 else None) for step in steps
    ]


def everything(paths, where="true"):
    listed = ", ".join(map(literal, paths))
    query = f"SELECT run_id, key, step, value, text FROM read_parquet([{listed}], filename = true)"
    return duckdb.sql(f"{query} WHERE {where} ORDER BY key, run_id, step").fetchall()


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(segment_merge, "BATCH_ROWS", 256)
    monkeypatch.setattr(segment_writer, "ROW_GROUP", 512)


def test_a_merge_holds_the_same_in_order(tmp_path):
    dice = random.Random(1)
    rows = {}
    for number in range(5):
        rows[number] = []
        for run_id in dice.sample(["a", "b", "ü", "z/1"], 3):
            for key in dice.sample(["loss", "acc", "é.x", "Z"], 3):
                first = number * 10_000
                rows[number] += values(run_id, key, sorted(dice.sample(range(first, first + 3000), 400)))
    paths = [segment(tmp_path / f"{number}.parquet", some) for number, some in rows.items()]
    target = tmp_path / "merged.parquet"
    segment_merge.merge(target, [Source(path, {"b"} if path == paths[2] else ()) for path in reversed(paths)])
    merged = pq.ParquetFile(target)
    found = [tuple(row.values()) for row in merged.read(columns=list(SHAPE)).to_pylist()]
    assert found == everything(paths, f"NOT (run_id = 'b' AND filename = {literal(paths[2])})")
    sizes = [merged.metadata.row_group(group).num_rows for group in range(merged.num_row_groups)]
    assert set(sizes[:-1]) == {512}


def test_stretches_that_overlap_are_not_merged(tmp_path):
    paths = [
        segment(tmp_path / f"{start}.parquet", values("a", "loss", range(start, start + 2000, 2))) for start in (0, 1)
    ]
    with pytest.raises(Unsuitable):
        segment_merge.merge(tmp_path / "merged.parquet", [Source(path) for path in paths])


def test_short_stretches_are_not_merged(tmp_path):
    rows = [row for number in range(2000) for row in values(f"r{number:04d}", "loss", range(3))]
    path = segment(tmp_path / "one.parquet", rows)
    with pytest.raises(Unsuitable):
        segment_merge.merge(tmp_path / "merged.parquet", [Source(path)])


def test_what_cannot_be_merged_is_sorted(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "MERGE", 4)
    monkeypatch.setattr(segment_merge, "LOOKED_AT", 10)
    with opened(tmp_path, tail_values=0) as store:
        names = [f"r{number}" for number in range(30)]
        write(store, *map(run, names))
        for first in range(0, 20, 5):
            write(store, history=[curve(name, range(first, first + 5)) for name in names])
            settle(store)
        assert read(store, "SELECT level, count(*) FROM store.segments WHERE retired_at IS NULL GROUP BY 1") == [(1, 1)]
        assert read(store, "SELECT count(*), count(DISTINCT (run_id, step)), sum(step) FROM history") == [
            (600, 600, 30 * 190)
        ]
        with store.transaction() as tx:
            staging.stage(tx, PROJECT, [])
            staging.swap(tx, PROJECT, {"r3": (0, None)})
        assert read(store, "SELECT count(*) FROM history") == [(580,)]
