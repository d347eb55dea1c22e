"""What the mirror adds to the official client's calls, and what it says to those that cannot be."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mirror
from mirror.errors import ArgumentError, MissingPackage, QueryError
from mirror.sandbox import World, sample
from mirror.sandbox.sweep import Sweep
from mirror.snapshot import sampling
from tests.api.conftest import Bench, bench

pytestmark = pytest.mark.xdist_group("small sample")

VISION = "my-team/vision/vision00"


@pytest.fixture(scope="module")
def mirrored() -> Iterator[Bench]:
    with bench(sample.small()) as made:
        yield made


@pytest.fixture
def api(mirrored: Bench) -> Any:
    return mirror.Api()


def test_history_in_every_format(api: Any, mirrored: Bench) -> None:
    """The same values; what was not logged is null, NaN or missing."""
    there = mirrored.world.run("my-team", "vision", "vision00").rows()
    run = api.run(VISION)
    rows, frame, polars, arrow = (
        run.history(samples=None, format=form) for form in ("dicts", "pandas", "polars", "arrow")
    )
    assert rows == there
    assert (type(frame), type(polars), type(arrow)) == (pd.DataFrame, pl.DataFrame, pa.Table)
    losses = [row["loss"] for row in there]
    assert list(frame["loss"]) == polars["loss"].to_list() == arrow["loss"].to_pylist() == losses
    accuracy = [row.get("val/acc") for row in there]
    assert polars["val/acc"].to_list() == arrow["val/acc"].to_pylist() == accuracy
    assert [None if math.isnan(value) else value for value in frame["val/acc"]] == accuracy
    assert (frame["_step"].dtype, polars.schema["_step"], arrow.schema.field("_step").type) == (
        "int64",
        pl.Int64,
        pa.int64(),
    )
    weights = [value for value in arrow["weights"].to_pylist() if value is not None]
    assert (len(weights), weights[0].startswith('{"_type":"histogram"')) == (1, True)
    assert frame["weights"][50]["_type"] == "histogram"


def test_samples_are_spread_evenly(api: Any) -> None:
    """The first row and the last among them; all of them where there are no more."""
    run = api.run(VISION)
    assert list(run.history(samples=5)["_step"]) == [0, 25, 50, 75, 99]
    assert list(run.history(samples=3, keys=["val/acc"])["_step"]) == [9, 59, 99]
    assert len(run.history(samples=1)) == 1
    assert [len(run.history(samples=many)) for many in (100, 101, 10**9, None)] == [100] * 4


def test_types_that_a_key_changes_between(api: Any) -> None:
    """Dictionaries have each value as it was logged; columns of one type are text where they must be."""
    run = api.run("my-team/oddities/types001")
    assert [row["v"] for row in run.history(pandas=False)] == [1, "two", 3.5, [4]]
    assert run.history(format="polars")["v"].to_list() == ["1", '"two"', "3.5", "[4]"]
    assert run.history(format="arrow")["flag"].to_pylist() == [True, False, None, None]
    assert run.history(format="arrow")["nested.c"].to_pylist() == ["x", None, None, None]
    numbers = api.run("my-team/oddities/numbers1").history(pandas=False)
    assert [row["count"] for row in numbers[:3]] == [2**53 + 1, 2**60 + 1, 7]
    assert (math.isnan(numbers[1]["x"]), numbers[2]["x"]) == (True, -math.inf)


def test_histories_below_each_other(api: Any) -> None:
    """Runs with other keys and other types go into one table, and each row knows its run."""
    runs = api.runs("my-team/oddities")
    arrow = runs.histories(samples=None, format="arrow")
    assert arrow.num_rows == sum(len(run.history(samples=None)) for run in runs) == 37
    assert arrow.column_names == sorted(arrow.column_names)
    assert sorted(set(arrow["run_id"].to_pylist())) == ["crashed1", "gaps0001", "names001", "numbers1", "types001"]
    assert runs.histories(samples=None, format="polars").shape == arrow.shape
    assert runs.histories(samples=None, format="pandas").shape == arrow.shape
    assert len(runs.histories(samples=None)) == 37
    assert api.runs("my-team/vision", {"name": "vision00"}).histories(keys=["loss"], samples=2) == [
        {**row, "run_id": "vision00"} for row in api.run(VISION).history(keys=["loss"], samples=2, pandas=False)
    ]
    nothing = api.runs("my-team/oddities", {"name": "empty001"})
    assert (nothing.histories(), len(nothing.histories(format="polars"))) == ([], 0)


def test_a_list_of_runs(api: Any) -> None:
    """Like a list, lazily: pages are read when they are needed, and a run is the same object each time."""
    runs = api.runs("my-team/vision", order="+created_at", per_page=2)
    ids = [f"vision0{n}" for n in range(5)]
    assert [run.id for run in runs] == [run.id for run in runs] == ids
    assert [run.id for run in reversed(runs)] == ids[::-1]
    assert [runs[place].id for place in (-1, -5, 0, 4)] == [ids[-1], ids[0], ids[0], ids[4]]
    assert [[run.id for run in runs[cut]] for cut in (slice(1, None, 2), slice(-2, None), slice(9, 10))] == [
        ["vision01", "vision03"], ["vision03", "vision04"], [],
    ]  # fmt: skip
    assert (runs[1] is runs[1], runs[1] in runs, len(runs), bool(api.runs("my-team/vision", {"state": "x"}))) == (
        True, True, 5, False,
    )  # fmt: skip
    iter(runs)
    assert [next(runs).id, runs.next().id] == ids[:2]
    with pytest.raises(IndexError):
        runs[5]
    assert [(a.id, b.id) for a in runs[:2] for b in runs[:2]] == [(a, b) for a in ids[:2] for b in ids[:2]]


def test_sweeps_and_projects() -> None:
    """Sweeps are mirrored with their runs, also those that have none yet."""
    world = sample.small()
    for index, loss in enumerate((0.5, 0.25, 0.75)):
        run = world.add_run("my-team", "swept", run_id=f"s{index}", config={"lr": index}, sweep="sw1")
        run.log({"loss": loss})
    world.add_run("my-team", "swept", run_id="alone", config={})
    for name in ("sw1", "waiting"):
        made = Sweep(name, "my-team", "swept", datetime(2026, 1, 1), "method: random", state="PENDING")
        world.projects["my-team", "swept"].sweeps[name] = made
    with bench(world) as there:
        api = mirror.Api()
        sweep = api.run("my-team/swept/s1").sweep
        assert (sweep, sweep.id, sweep.path) == (api.sweep("my-team/swept/sw1"), "sw1", ["my-team", "swept", "sw1"])
        assert [run.id for run in sweep.runs] == ["s0", "s1", "s2"]
        assert sweep.best_run("+summary_metrics.loss").id == "s1"
        assert (api.run("my-team/swept/alone").sweep, list(api.project("swept").sweeps())) == (
            None, [sweep, api.sweep("my-team/swept/waiting")],
        )  # fmt: skip
        assert [project.name for project in api.projects()] == ["oddities", "swept", "vision"]
        assert len(api.project("vision", "my-team").runs()) == 5
        with pytest.raises(mirror.CommError, match="no run of a sweep nope"):
            api.sweep("my-team/swept/nope")
        there.server.stop()
        offline = mirror.Api()
        assert [sweep.id for sweep in offline.project("swept").sweeps()] == ["sw1", "waiting"]
        assert (offline.sweep("my-team/swept/waiting").config, offline.sweep("my-team/swept/sw1").run_count) == (
            {"method": "random"}, 3,
        )  # fmt: skip
        assert [run.id for run in offline.sweep("my-team/swept/sw1").runs] == ["s0", "s1", "s2"]
        assert repr(offline.sweep("my-team/swept/sw1")) == "<Sweep my-team/swept/sw1 (PENDING)>"
        with pytest.raises(mirror.CommError):
            offline.sweep("my-team/swept/nope")


def test_errors_say_what_to_do(api: Any) -> None:
    """One line each, before anything is read."""
    run = api.run(VISION)
    for call, kind, message in (
        (lambda: api.run("my-team/vision/vision0"), mirror.CommError, "did you mean my-team/vision/vision0"),
        (lambda: api.run("my-team/visio/x"), mirror.CommError, "did you mean my-team/vision"),
        (lambda: api.runs("my-team/vision", {"config.lr": {"$gtt": 1}}), mirror.FilterError, r"\$gt"),
        (lambda: api.runs("my-team/vision", order="-nothing"), mirror.FilterError, "nothing"),
        (api.runs, ArgumentError, "WANDB_PROJECT"),
        (lambda: api.runs("my-team/vision", per_page=0), ArgumentError, "per_page=0"),
        (lambda: run.history(stream="nope"), ArgumentError, "stream='nope'"),
        (lambda: run.history(stream="system"), QueryError, "sync.system_metrics = true"),
        (lambda: run.history(format="csv"), ArgumentError, "unknown format 'csv'"),
        (lambda: run.scan_history(keys="loss"), ArgumentError, "keys must be specified in a list"),
        (lambda: api.run(""), ArgumentError, "entity/project/run_id"),
        (lambda: mirror.Api({"team": "x"}), ArgumentError, "unknown 'team'"),
        (lambda: run.nothing, AttributeError, "nothing"),
    ):
        with pytest.raises(kind, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_doubtful_questions_are_warned_of(api: Any) -> None:
    """Where the official client answers with nothing, and says nothing."""
    with pytest.warns(UserWarning, match="has no key 'los'; did you mean loss"):
        assert api.run(VISION).history(keys=["los"], pandas=False) == []
    with pytest.warns(UserWarning, match="config key 'lrr' is in no run; did you mean 'lr'"):
        assert len(api.runs("my-team/vision", {"config.lrr": 1})) == 0


def test_overrides_and_short_paths(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entity and project from the call, the environment, or the only one that fits."""
    ours = mirror.Api({"entity": "my-team", "project": "vision"})
    assert {ours.run(path).id for path in ("vision00", "vision/vision00", "my-team/vision/runs/vision00")} == {
        "vision00"
    }
    assert len(ours.runs()) == len(api.runs("vision")) == 5
    monkeypatch.setenv("WANDB_PROJECT", "oddities")
    assert len(mirror.Api().runs()) == 7


def test_threads_share_an_api(api: Any) -> None:
    """Each reads its own run."""
    found: dict[str, int] = {}

    def read(run: Any) -> None:
        found[run.id] = sum(1 for _ in run.scan_history())

    threads = [threading.Thread(target=read, args=[run]) for run in api.runs("my-team/vision")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"vision0{n}": 100 for n in range(5)}


def test_history_that_is_stored_in_segments(mirrored: Bench) -> None:
    """Part of it in Parquet, part in the file: the same rows."""
    world = sample.small()
    with bench(world) as made:
        before = [list(run.scan_history()) for run in mirror.Api().runs("my-team/vision")]
        made.rig.tail_values = 1
        world.run("my-team", "vision", "vision03").log({"loss": 1.0})
        made.rig.sync("my-team/vision")
        made.rig.tail_values = 10_000_000
        world.run("my-team", "vision", "vision03").log({"loss": 2.0})
        made.rig.sync("my-team/vision")
        assert made.rig.sql("select count(*) > 0 from store.segments") == [(True,)]
        api = mirror.Api()
        after = [list(run.scan_history()) for run in api.runs("my-team/vision")]
        assert [rows[:100] for rows in after] == before
        assert [row["loss"] for row in api.run("vision/vision03").scan_history(min_step=100)] == [1.0, 2.0]
        sampled = api.runs("my-team/vision").histories(keys=["loss"], samples=3)
        assert [row["_step"] for row in sampled if row["run_id"] == "vision03"] == [0, 51, 101]


def test_packages_that_are_not_installed(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install; an ImportError, too."""
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingPackage, match=rf"{name} is not installed: `pip install 'wandb-mirror\[{name}\]'`"):
            api.run(VISION).history(format=name)
    assert issubclass(MissingPackage, ImportError)
    assert len(api.run(VISION).history(pandas=False)) == 100


def test_import_is_light() -> None:
    """`import mirror` and the name of its Api load no database, no HTTP client, no frames."""
    script = (
        "import sys, mirror; mirror.CommError; dir(mirror)\n"
        "heavy = {'duckdb', 'httpx', 'pandas', 'pyarrow', 'polars', 'rich', 'wandb'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    reading = script.replace("dir(mirror)", "mirror.Api; mirror.Run; mirror.Runs")
    done = subprocess.run([sys.executable, "-c", reading], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_tells_of_everything() -> None:
    """Each public name has its lines."""
    for kind in (mirror.Api, mirror.Run, mirror.Runs):
        for name, member in vars(kind).items():
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                assert getattr(member, "__doc__", None), f"{kind.__name__}.{name}"


def test_metadata_that_is_mirrored_needs_no_server() -> None:
    with bench(sample.small(), metadata=True) as made:
        there = {run.path: run.metadata() or None for run in runs_of(made)}
        made.server.reset_counts()
        api = mirror.Api()
        assert {path: api.run(path).metadata for path in there} == there
        assert None in there.values()
        assert any(there.values())
        assert sum(made.server.requests.values()) == 0


def runs_of(made: Bench) -> list[Any]:
    """Every run that has ended; the file of one that has not may still come."""
    found = [run for entity, project in made.world.projects for run in made.world.runs(entity, project)]
    return [run for run in found if run.state != "running"]


def test_keys_of_any_spelling_are_keys_of_the_rows() -> None:
    """Quotes, braces, line breaks and what looks like code stand in the rows as they were logged."""
    odd = ["it's", 'a "b"', "{x}", "back\\slash", "new\nline", "', v0) or print('", "f{0!r}", "ключ/п", "", "%s"]
    logged = [{key: step + place / 2 for place, key in enumerate(odd)} for step in range(1200)]
    world = World(username="odd", entity="my-team")
    for name in ("first", "second"):
        run = world.add_run("my-team", "odd", run_id=name)
        run.log_many(dict(row) for row in logged)
        run.finish()
    with bench(world):
        for run in mirror.Api().runs("my-team/odd"):
            rows = list(run.scan_history())
            assert [{key: row[key] for key in odd} for row in rows] == logged
            assert [row["_step"] for row in rows] == list(range(1200))


def test_a_scan_can_be_looped_over_and_stepped_through(api: Any) -> None:
    """`next` goes on where a loop was left, and a new loop begins again, as with the official client."""
    scan = api.run(VISION).scan_history(keys=["loss"])
    every = list(scan)
    assert next(scan, None) is None
    for row in scan:
        assert row == every[0]
        break
    assert [next(scan), next(scan)] == every[1:3]
    assert list(scan) == every


def test_samples_are_the_same_however_they_are_picked(mirrored: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Picked by Arrow, by DuckDB, or by a key that every row has, as the length of a run decides."""

    def histories() -> list[Any]:
        runs = list(mirror.Api().runs("my-team/vision"))
        asked: list[dict[str, Any]] = [
            *({"samples": samples} for samples in (1, 2, 7, 500)),
            *({"samples": samples, "keys": ["loss", "val/acc"]} for samples in (1, 3, 500)),
            {"samples": None, "keys": ["val/acc"]},
        ]
        # Backwards, since a loop forwards reads many runs at once.
        return [run.history(pandas=False, **given) for run in reversed(runs) for given in asked]

    arrow = histories()
    assert max(map(len, arrow)) > 7
    monkeypatch.setattr(sampling, "MOST_VALUES", 0)
    assert histories() == arrow
    monkeypatch.setattr(sampling, "DENSE_VALUES", 0)
    assert histories() == arrow


def test_a_run_by_the_address_of_its_page(api: Any) -> None:
    """As people copy it from the browser; what is not a path gets an error that says so."""
    run = api.run(VISION)
    assert api.run(f"{run.url}?nw=nwuser#charts").path == run.path
    with pytest.raises(ArgumentError, match="None is not a run path"):
        api.run(None)
    runs = api.runs("my-team/vision")
    with pytest.raises(IndexError, match=f"there are {len(runs)} runs"):
        runs[len(runs)]
