"""The same calls on the official client and on the mirror, against one server, over all sample projects.

Everything is compared as it comes, but for the differences that stand in DIFFERENCES: each has its reason, and a test
that shows both sides of it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb

import mirror
from mirror.store import sqlfiles
from tests.api.conftest import Bench
from tests.reading import rows

pytestmark = pytest.mark.xdist_group("full sample")

PROJECTS = ("vision", "language", "rl-control", "oddities")

DIFFERENCES = {
    "order": "the default order is -created_at, as W&B's guide promises; today's client sorts the other way",
    "samples": "the client draws rows at random past `samples`; the mirror takes evenly spaced ones",
    "nested": "live histories nest objects, exported ones have dotted keys; the mirror has dotted keys always",
    "missing": "rows of exported histories hold None for what was not logged; the mirror's rows lack the key",
    "keys": "the client gives rows of exported histories that lack the keys, against its own documentation",
    "media": "media of exported histories are JSON text in the client's rows; the mirror has the object always",
    "words": 'the strings "NaN", "Infinity", "-Infinity" of old writers are the numbers that they stand for',
    "whole": "JSON tells 2 and 2.0 apart, the mirror does not: a column of whole numbers is one of integers",
    "columns": "columns of a frame stand by name behind the step, not in the order of logging",
    "position": "runs[-1] and runs[::2] work before all pages were loaded",
    "telemetry": "rawconfig of a list with lazy=False loses `_wandb` in the client",
    "arguments": "samples below 1 are an error instead of an empty answer; keys may be a tuple",
}

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A row of the client as the mirror has it: the differences `nested`, `missing`, `media` and `words`."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, str) and value.startswith('{"_type":'):
            found[prefix + key] = json.loads(value)
        elif isinstance(value, dict) and value and "_type" not in value:
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[prefix + key] = WORDS.get(value, value) if isinstance(value, str) else value
    return found


def same(theirs: Any, ours: Any) -> bool:
    """Equal, NaN being equal to NaN."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return theirs.keys() == ours.keys() and all(same(theirs[key], ours[key]) for key in theirs)
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(same, theirs, ours))
    if isinstance(theirs, float) and isinstance(ours, float) and theirs != theirs:
        return ours != ours
    return theirs == ours and isinstance(theirs, bool) == isinstance(ours, bool)


def pairs(both: tuple[Any, Any], project: str, every: int = 1) -> list[tuple[Any, Any]]:
    theirs, ours = both
    listed = theirs.runs(f"acme/{project}", order="-created_at", lazy=False)
    return list(zip(listed, ours.runs(f"acme/{project}"), strict=True))[::every]


@pytest.mark.parametrize("project", PROJECTS)
def test_every_run_has_the_same_attributes(both: Any, project: str) -> None:
    """Names, times, documents, addresses: all that both sides have."""
    names = (
        *("id", "name", "display_name", "state", "tags", "notes", "group", "job_type", "commit", "created_at"),
        *("heartbeat_at", "description", "url", "path", "entity", "project", "sweep_name", "storage_id", "username"),
        *("lastHistoryStep", "history_line_count", "historyLineCount"),
    )
    for theirs, ours in pairs(both, project):
        assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}
        assert list(ours.config.items()) == list(theirs.config.items())
        assert same(flat(theirs.summary._json_dict), flat(dict(ours.summary)))
        assert same(flat(theirs.summary_metrics), flat(ours.summary_metrics))
        assert (ours.user.username, ours.user.name) == (theirs.user.username, theirs.user.name)
        assert (ours.sweep and ours.sweep.id) == (theirs.sweep and theirs.sweep.id)
        assert (ours.sweep and ours.sweep.path) == (theirs.sweep and theirs.sweep.path)
        assert str(ours) == str(theirs)
        assert type(ours.config) is type(theirs.config) is dict


def test_a_single_run_is_the_same(both: Any) -> None:
    """Also what the client has to ask for extra: metadata, the raw config, files."""
    theirs, ours = (api.run("acme/vision/1d584bb5") for api in both)
    assert ours.rawconfig == theirs.rawconfig
    assert ours.json_config == theirs.json_config
    assert ours.metadata == theirs.metadata
    assert [file.name for file in ours.files()] == [file.name for file in theirs.files()]
    assert ours.file("wandb-metadata.json").size == theirs.file("wandb-metadata.json").size
    assert ours.load().keys() & theirs.load().keys() >= {"id", "name", "state", "config", "summaryMetrics", "createdAt"}
    for path in ("acme/vision/runs/1d584bb5", "/acme/vision/1d584bb5", "vision/1d584bb5", "vision:1d584bb5"):
        assert [api.run(path).id for api in both] == ["1d584bb5", "1d584bb5"]
    assert both[1].default_entity == both[0].default_entity
    assert both[1].viewer.username == both[0].viewer.username
    assert {one.name for one in both[1].projects("acme")} == {one.name for one in both[0].projects("acme")}


ORDERS = ("+created_at", "-created_at", "created_at", "-summary_metrics.loss", "+config.lr.value", "-heartbeat_at")


@pytest.mark.parametrize("order", ORDERS)
def test_orders(both: Any, order: str) -> None:
    """In every project."""
    for project in PROJECTS:
        theirs, ours = (api.runs(f"acme/{project}", order=order, per_page=200) for api in both)
        assert [run.id for run in ours] == [run.id for run in theirs]


FILTERS = (
    {"state": "finished"},
    {"config.lr": {"$gt": 0.001}, "state": {"$ne": "running"}},
    {"$or": [{"config.optimizer.name": "adam"}, {"config.env": "Ant-v5"}]},
    {"config.optimizer.value.name": "adam", "tags": "baseline"},
    {"summary_metrics.loss": {"$lt": 1.0}},
    {"tags": {"$in": ["paper", "nächster Schritt"]}},
    {"display_name": {"$regex": "^sunny"}},
    {"displayName": {"$regex": "-1.*"}, "jobType": "eval"},
    {"created_at": {"$gte": "2025-03-05T00:00:00Z"}},
    {"name": {"$in": ["1d584bb5", "numbers1"]}},
    {"group": "main", "username": {"$ne": "ada"}},
    {"sweep": {"$ne": None}, "$nor": [{"state": "crashed"}, {"state": "failed"}]},
    {"config.nothing_has_this": {"$exists": True}},
)


@pytest.mark.parametrize("filters", FILTERS, ids=map(str, FILTERS))
@pytest.mark.filterwarnings("ignore:.*no run")
def test_filters(both: Any, filters: dict[str, Any]) -> None:
    """The same runs in the same order, and the same count."""
    for project in PROJECTS:
        theirs, ours = (api.runs(f"acme/{project}", filters, "+created_at", per_page=200) for api in both)
        assert len(ours) == len(theirs)
        assert [run.id for run in ours] == [run.id for run in theirs]


@pytest.mark.parametrize("project", PROJECTS)
def test_scan_history(both: Any, project: str) -> None:
    """Every row."""
    for theirs, ours in pairs(both, project, every=1 if project == "oddities" else 6):
        expected = [flat(row) for row in theirs.scan_history(page_size=100_000)]
        assert same(expected, [flat(row) for row in ours.scan_history()]), ours.id


@pytest.mark.parametrize("project", PROJECTS)
def test_scan_history_of_keys_and_steps(both: Any, project: str) -> None:
    """Rows that hold all keys, within bounds, whatever the page."""
    asked = ({"keys": ["loss", "epoch"]}, {"min_step": 10, "max_step": 400, "page_size": 33}, {"max_step": 10**9})
    for theirs, ours in pairs(both, project, every=1 if project == "oddities" else 40):
        for arguments in asked:
            expected = [flat(row) for row in theirs.scan_history(**arguments)]
            if "keys" in arguments:
                expected = [row for row in expected if row.keys() >= {"loss", "epoch"}]
            assert same(expected, [flat(row) for row in ours.scan_history(**arguments)])
        assert ours.scan_history(max_step=7).max_step == theirs.scan_history(max_step=7).max_step


@pytest.mark.parametrize("project", PROJECTS)
def test_history(both: Any, project: str) -> None:
    """As dictionaries and as a DataFrame, with keys and another x axis."""
    for theirs, ours in pairs(both, project, every=1 if project == "oddities" else 40):
        rows = theirs.history(pandas=False)
        assert same([flat(row) for row in rows], [flat(row) for row in ours.history(pandas=False)])
        for arguments in ({"keys": ["loss"]}, {"keys": ["loss", "epoch"]}, {"keys": ["loss"], "x_axis": "epoch"}):
            if not {"loss", "epoch"} <= (ours.history_keys or {"keys": {}})["keys"].keys():
                continue
            expected = theirs.history(pandas=False, **arguments)
            assert same([flat(row) for row in expected], ours.history(pandas=False, **arguments))
            assert [list(row) for row in expected] == [list(row) for row in ours.history(pandas=False, **arguments)]
            if not any(isinstance(value, str) for row in expected for value in row.values()):
                pd.testing.assert_frame_equal(ours.history(**arguments), theirs.history(**arguments))
        expected_frame = pd.DataFrame.from_records([flat(row) for row in rows])
        by_name = ours.history().drop(columns="nothing", errors="ignore")  # logged as None, the difference `missing`
        if not rows:
            assert by_name.shape == (0, 0)
            continue
        assert sorted(by_name.columns) == sorted(expected_frame.columns)
        pd.testing.assert_frame_equal(by_name[list(expected_frame.columns)], expected_frame, check_dtype=False)


def test_system_metrics(both: Any) -> None:
    """The other stream."""
    for theirs, ours in pairs(both, "vision", every=40):
        assert same(theirs.history(stream="system", pandas=False), ours.history(stream="system", pandas=False))


def test_no_system_metrics_are_no_rows(both: Any) -> None:
    """Not an error, and not a failure of the function that makes rows."""
    for theirs, ours in pairs(both, "oddities"):
        assert theirs.history(stream="system", pandas=False) == ours.history(stream="system", pandas=False) == []
        assert ours.history(stream="system").empty


def test_histories_of_many_runs(both: Any) -> None:
    """One list, or one frame, with the run ids."""
    wanted = {"config.lr": {"$gt": 0.002}}
    theirs, ours = (api.runs("acme/vision", wanted, "+created_at", per_page=200) for api in both)
    arguments = {"keys": ["loss", "val/loss"], "samples": 1000}
    assert ours.histories(**arguments) == theirs.histories(**arguments)
    pd.testing.assert_frame_equal(
        ours.histories(format="pandas", **arguments), theirs.histories(format="pandas", **arguments)
    )


def test_lists(both: Any) -> None:
    """Length, positions, slices."""
    theirs, ours = (api.runs("acme/vision", order="+created_at", per_page=7) for api in both)
    assert len(theirs) == len(ours) == 240
    for place in (0, 6, 7, 100):
        assert ours[place].id == theirs[place].id
    for cut in (slice(0, 10), slice(3, 30, 4), slice(20, 25)):
        assert [run.id for run in ours[cut]] == [run.id for run in theirs[cut]]
    iter(ours), iter(theirs)
    assert next(ours).id == next(theirs).id
    assert str(ours) == str(theirs)


def steps(listed: Any) -> list[Any]:
    """What `next` gives at first, after a loop that was left, and at the end."""
    found = [next(listed).id, listed.next().id]
    for first in listed:
        found.append(first.id)
        break
    found += [next(listed).id, [one.id for one in listed], len(listed.objects), next(listed, "end")]
    return found


@pytest.mark.parametrize("kind", ["runs", "sweeps", "sweep's runs"])
def test_next_steps_through_each_list(both: Any, kind: str) -> None:
    """From where the last loop was left, as in the official client."""
    make = {
        "runs": lambda api: api.runs("acme/oddities", {"state": {"$ne": "?"}}, "+created_at", per_page=2),
        "sweeps": lambda api: api.project("vision", "acme").sweeps(),
        "sweep's runs": lambda api: api.sweep("acme/vision/visiswp0").runs,
    }[kind]
    theirs, ours = (steps(make(api)) for api in both)
    assert ours == theirs
    assert ours[-1] == "end"


def test_a_summary_has_no_key_of_a_wrong_name(both: Any) -> None:
    theirs, ours = (api.run("acme/vision/1d584bb5").summary for api in both)
    for summary in (theirs, ours):
        with pytest.raises(KeyError, match="nothing"):
            _ = summary.nothing
    assert not hasattr(ours, "nothing")


def test_system_metrics_by_the_servers_name_of_the_stream(both: Any) -> None:
    """Scripts from before "system" ask for "events"."""
    theirs, ours = (api.run("acme/vision/1d584bb5") for api in both)
    rows = ours.history(stream="events", pandas=False)
    assert same(theirs.history(stream="events", pandas=False), rows)
    assert rows == ours.history(stream="system", pandas=False) != []
    with pytest.warns(UserWarning, match="stream="):
        assert ours.history(keys=["cpu"], stream="events") == []


def test_files_by_one_name_and_by_the_servers_fields(both: Any, tmp_path: Path) -> None:
    theirs, ours = (api.run("acme/vision/1d584bb5").files(names="wandb-metadata.json")[0] for api in both)
    names = ("name", "sizeBytes", "size_bytes", "mimetype", "updatedAt", "md5", "id")
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
    assert (ours.run.id, theirs.run.id) == ("1d584bb5", "1d584bb5")
    assert (bool(ours.directUrl), repr(ours.run.files())) == (bool(theirs.directUrl), repr(theirs.run.files()))
    assert not hasattr(ours, "nothing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with ours.download() as opened:
            assert (opened.name, opened.read()[:1]) == ("wandb-metadata.json", "{")


# The differences, each with what either side does.


def test_difference_order(both: Any) -> None:
    theirs, ours = (api.runs("acme/oddities") for api in both)
    assert [run.id for run in theirs] == [run.id for run in reversed(ours)]


def test_difference_samples(both: Any) -> None:
    theirs, ours = (api.run("acme/vision/1d584bb5").history(samples=4, keys=["loss"]) for api in both)
    assert list(ours["_step"]) == [0, 40, 80, 119]
    assert (len(theirs), list(theirs["_step"]) != [0, 40, 80, 119]) == (4, True)


def test_difference_nested_and_missing(both: Any) -> None:
    exported, live = pairs(both, "language")[-1], pairs(both, "language")[1]
    for (theirs, ours), key in ((exported, "grad.norm"), (live, "grad")):
        assert key in next(iter(theirs.scan_history()))
        assert "grad.norm" in next(iter(ours.scan_history()))
    theirs, ours = (next(iter(run.scan_history())) for run in exported)
    assert (theirs["epoch"], "epoch" in ours) == (None, False)


def test_difference_keys(both: Any) -> None:
    theirs, ours = (list(run.scan_history(keys=["loss", "epoch"])) for run in pairs(both, "language")[-1])
    assert (len(theirs), len(ours)) == (100, 5)
    assert [row for row in theirs if row["epoch"] is not None] == ours


def test_difference_media(both: Any) -> None:
    theirs, ours = (list(run.scan_history())[-1]["completions"] for run in pairs(both, "language")[-2])
    assert isinstance(theirs, str)
    assert json.loads(theirs) == ours


def test_difference_words_and_whole(both: Any) -> None:
    theirs, ours = (api.run("acme/oddities/numbers1").history(pandas=False)[3] for api in both)
    assert (theirs["old_inf"], ours["old_inf"]) == ("Infinity", math.inf)
    assert [type(row["_runtime"]) for row in (theirs, ours)] == [float, int]


def test_difference_columns(both: Any) -> None:
    theirs, ours = (list(api.run("acme/oddities/gaps0001").history().columns) for api in both)
    assert (theirs, ours) == (["_step", "loss", "_timestamp", "_runtime"], ["_step", "_runtime", "_timestamp", "loss"])


def test_difference_position(both: Any) -> None:
    theirs, ours = (api.runs("acme/rl-control", {"state": {"$ne": "?"}}, "+created_at") for api in both)
    with pytest.raises(IndexError):
        theirs[-1]
    with pytest.raises(TypeError):
        theirs[::2]
    assert (ours[-1].id, len(ours[::2])) == (list(ours)[119].id, 60)


def test_difference_telemetry(both: Any) -> None:
    # An Api of its own: a run that was looked at more closely before has it.
    theirs, ours = pairs((type(both[0])(), both[1]), "vision")[0]
    assert ("_wandb" in theirs.rawconfig, "_wandb" in ours.rawconfig) == (False, True)
    assert "_wandb" in json.loads(ours.json_config)


def test_difference_arguments(both: Any) -> None:
    theirs, ours = (api.run("acme/vision/1d584bb5") for api in both)
    with pytest.raises(ValueError, match="samples="):
        ours.history(samples=0)
    assert theirs.history(keys=("loss",)) == []
    assert len(ours.history(keys=("loss",), samples=3)) == 3


@pytest.mark.parametrize("keys", ["loss", ["loss", 1][::-1], {"loss": 1}])
def test_keys_that_are_no_list_of_texts_are_answered_alike(both: Any, keys: Any) -> None:
    """No rows and a word about it; a scan is refused."""
    theirs, ours = (api.run("acme/vision/1d584bb5") for api in both)
    assert theirs.history(keys=keys) == []
    with pytest.warns(UserWarning, match=r"keys (argument )?must be"):
        assert ours.history(keys=keys) == []
    with pytest.warns(UserWarning, match=r"keys (argument )?must be"):
        assert both[1].runs("acme/language").histories(keys=keys) == []
    with pytest.raises(wandb.errors.CommError, match="list") as refused:
        theirs.scan_history(keys=keys)
    with pytest.raises(mirror.CommError, match="list") as ours_refused:
        ours.scan_history(keys=keys)
    assert type(refused.value.exc) is type(ours_refused.value.exc) is ValueError
    assert theirs.history(keys=["cpu"], stream="system") == []
    with pytest.warns(UserWarning, match="stream="):
        assert ours.history(keys=["cpu"], stream="system") == []


@pytest.mark.parametrize("project", PROJECTS)
def test_facts_of_runs_from_the_server_are_the_same_on_both_sides(both: Any, project: str) -> None:
    """Both ways to write a name."""
    for theirs, ours in pairs(both, project, every=7):
        for name in ("system_metrics", "systemMetrics", "read_only", "readOnly", "project_id", "historyKeys"):
            assert same(getattr(theirs, name), getattr(ours, name)), (ours, name)
        assert repr(ours.user) == repr(theirs.user)
        assert ours.load_full_data().keys() - theirs.load_full_data().keys() == {"host", "updatedAt"}


# What each of sql/examples shows first to somebody who tries them on the sample, and how many rows it has.
EXAMPLES = {
    "best_run_per_sweep": (7, "acme language langswp0 loss b14317ee lunar-dawn-29 1.7274 71"),
    "best_runs": (10, "acme vision c99c94d4 noble-snow-15 0.86955 0.00036293"),
    "compare_configs": (13, "acme language lr 0.0005176543633576 0.0012610222284150988"),
    "diverged_runs": (69, "acme language 317518ed sunny-wind-102 crashed 0 nan nan"),
    "duplicate_configs": (0, ""),
    "edits_after_the_end": (0, ""),
    "failures_by_host": (4, "gpu-h100-01 137 16 11.7 2025-03-06 20:41:00"),
    "gpu_hours_by_user": (4, "katherine 2025-03-01 00:00:00 137 132.43 613.52"),
    "group_means": (2, "acme vision sgd 104 0.76551 0.53102"),
    "last_console_lines": (0, ""),
    "last_tenth_means": (2, "acme vision adam 124 0.78739"),
    "learning_rate_effect": (10, "acme language -5 44 1.785 1.9473"),
    "longest_idle_gap": (515, "acme language 92fe2671 deep-lake-118 71.997 4050"),
    "loss_curves": (39187, "acme language 0324f4a6 0 4.0745"),
    "metric_at_step": (512, "acme rl-control 1c6920f1 noble-snow-42 48 0.017333"),
    "metrics_by_step": (51700, "acme language 0324f4a6 0 4.0745 None 2025-03-06 21:01:01.465000"),
    "run_states_by_day": (50, "acme language 2025-03-03 00:00:00 failed 2"),
    "runs_by_hardware": (3, "acme language NVIDIA A100-SXM4-80GB 160 4 251.2"),
    "stale_runs": (3, "acme rl-control b4321bfb still-sky-120 grace laptop-münchen 2025-03-06 11:15:48 ..."),
    "sweep_leaderboard": (
        70,
        "acme language langswp0 1 053d3250 warm-field-5 finished loss 1.7203 ...",
    ),
    "time_to_value": (223, "acme oddities gaps0001 gaps 5 4"),
}


def test_each_example_query_answers_over_the_sample(full: Bench) -> None:
    found = {}
    for name, text in sqlfiles.read("examples").items():
        answer = rows(full.rig.home.published, text)
        first = answer[0] if answer else ()
        if name in ("stale_runs", "sweep_leaderboard"):  # The minutes until now, and a long text.
            first = (*first[:-1], "...")
        shown = " ".join(f"{value:.5g}" if isinstance(value, float) else str(value) for value in first)
        found[name] = (len(answer), shown)
    assert found == EXAMPLES
