"""A mirror on another machine answers every call of the Python API as it does on its own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import mirror
from tests.peer.conftest import PROJECTS, Site

pytestmark = pytest.mark.xdist_group("peer")

INSTEAD = "mirror.Api(url=...) only reads what is mirrored, use wandb.Api() for the rest"
FACTS = (
    *("id", "name", "display_name", "state", "tags", "notes", "group", "job_type", "commit", "created_at", "path"),
    *("heartbeat_at", "description", "url", "entity", "project", "sweep_name", "storage_id", "username"),
    *("lastHistoryStep", "history_keys", "metadata", "system_metrics", "config", "rawconfig", "summary"),
)


def plain(value: Any) -> Any:
    """A value with its types, for comparisons in which NaN equals NaN."""
    if isinstance(value, pd.DataFrame):
        return [list(value.columns), [str(kind) for kind in value.dtypes], plain(value.to_dict("list"))]
    if isinstance(value, pa.Table):
        return [value.schema, plain(value.to_pydict())]
    if hasattr(value, "items") and not isinstance(value, type):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"{value}"
    return value if isinstance(value, str | int | bytes | None) else f"{type(value).__name__} {value}"


def fact(run: Any, name: str) -> Any:
    try:
        return plain(getattr(run, name))
    except mirror.CommError:
        # What is not mirrored is asked of the server, which neither of them reaches here.
        return mirror.CommError


def same(site: Site, read: Callable[[Any], Any]) -> Any:
    """What `read` returns of either Api, which must be the same, with the same warnings."""
    found = []
    for api in (site.here, site.there):
        with warnings.catch_warnings(record=True) as reported:
            warnings.simplefilter("always")
            found.append((plain(read(api)), [str(one.message) for one in reported if one.category is UserWarning]))
    assert found[1] == found[0]
    return found[0][0]


@pytest.mark.parametrize("project", PROJECTS)
def test_every_run_is_the_same(site: Site, project: str) -> None:
    every = same(site, lambda api: [{name: fact(run, name) for name in FACTS} for run in api.runs(project)])
    assert len(every) >= 3
    assert {len(facts) for facts in every} == {len(FACTS)}


@pytest.mark.parametrize(
    ("filters", "order"),
    [
        (None, "+created_at"),
        ({"config.lr": {"$gt": 0.001}}, "-summary_metrics.loss"),
        ({"$or": [{"state": "crashed"}, {"display_name": {"$regex": "a"}}]}, "+display_name"),
        ({"created_at": {"$gt": "2020-01-01"}}, "-created_at"),
        ({"config.nosuch": {"$exists": False}}, "-heartbeat_at"),
        ({"config.nosuch": 1}, "+name"),
    ],
)
def test_filters_and_orders_find_the_same_runs(site: Site, filters: Any, order: str) -> None:
    for project in PROJECTS:
        same(site, lambda api, path=project: [run.id for run in api.runs(path, filters, order)])


@pytest.mark.parametrize("project", PROJECTS)
def test_every_history_is_the_same(site: Site, project: str) -> None:
    def histories(api: Any) -> Any:
        return [
            [
                run.history(samples=None, pandas=False),
                run.history(samples=7),
                run.history(keys=["loss"], samples=3, format="arrow"),
                list(run.scan_history()),
                list(run.scan_history(keys=["loss"], min_step=1, max_step=4)),
            ]
            for run in api.runs(project)
        ]

    assert any(rows for rows, *_ in same(site, histories))


def test_frames_of_many_runs_are_the_same(site: Site) -> None:
    same(site, lambda api: [api.runs(path).df() for path in PROJECTS])
    same(site, lambda api: api.runs("my-team/vision").histories(keys=["loss"], samples=5, format="arrow"))


def test_files_console_tables_and_system_metrics_are_the_same(site: Site, tmp_path: Path) -> None:
    def read(api: Any) -> Any:
        run = api.run("team/p/run1")
        files = [(file.name, file.size, file.mimetype, file.md5, file.updated_at, file.read()) for file in run.files()]
        named = [file.name for file in run.files(["model.bin"])]
        return [files, named, list(run.console_logs()), run.table("t", format="dicts"), run.history(stream="system")]

    (table, model), named, console, rows, _ = same(site, read)
    assert model[-1] == bytes(range(256)) * 2
    assert named == ["model.bin"]
    assert [line[-1] for line in console] == ["epoch 1", "epoch 2"]
    assert rows == [{"n": 1, "word": "one"}, {"n": 2, "word": "two"}]
    assert table[0] == "media/t.table.json"
    with site.there.run("team/p/run1").file("model.bin").download(tmp_path) as opened:
        assert Path(opened.name).read_bytes() == bytes(range(256)) * 2


def test_sweeps_are_the_same(site: Site) -> None:
    def read(api: Any) -> Any:
        sweep = api.sweep("team/p/s1")
        listed = [one.id for one in api.project("p", "team").sweeps()]
        return [sweep.config, sweep.state, [run.id for run in sweep.runs], sweep.order, listed]

    assert same(site, read)[2:] == [["run0", "run1", "run2"], None, ["s1"]]


def test_artifacts_are_the_same(site: Site, tmp_path: Path) -> None:
    def read(api: Any) -> Any:
        one = api.artifact("team/p/data:small")
        return [
            [getattr(one, name) for name in ("id", "name", "type", "digest", "size", "metadata", "aliases", "tags")],
            [(file.name, file.size, file.md5) for file in one.files()],
            [version.version for version in api.artifacts("dataset", "team/p/data")],
            [kind.name for kind in api.artifact_types("team/p")],
            [made.name for made in api.run("team/p/run0").logged_artifacts()],
            [used.name for used in api.run("team/p/run1").used_artifacts()],
            one.manifest.entries["a.txt"].size,
        ]

    assert same(site, read)[2] == ["v1", "v0"]
    site.there.artifact("team/p/data:small").download(str(tmp_path))
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"a.txt": b"one", "sub/b.txt": b"two"}


def test_projects_and_freshness_are_the_same(site: Site) -> None:
    names = same(site, lambda api: [[project.entity, project.name, project.created_at] for project in api.projects()])
    assert [f"{entity}/{name}" for entity, name, _ in names] == sorted(PROJECTS)
    assert same(site, lambda api: api.as_of) is not None


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda api: api.runs("team/nosuch"), mirror.NotMirrored),
        (lambda api: api.run("team/p/run"), mirror.NotMirrored),
        (lambda api: api.runs("team/p", {"$nosuch": 1}), mirror.FilterError),
        (lambda api: api.run("team/p/run1").history(samples=0), ValueError),
        (lambda api: api.run("team/p/run1").table("nosuch"), ValueError),
    ],
)
def test_mistakes_get_the_same_error(site: Site, call: Any, kind: type[Exception]) -> None:
    lines = []
    for api in (site.here, site.there):
        with pytest.raises(kind) as raised:
            call(api)
        # The advice to pull it is for the mirror's own machine.
        lines.append(str(raised.value).partition("; `mirror sync")[0])
    assert lines[1] == lines[0]
    assert "\n" not in lines[1]


@pytest.mark.parametrize(
    "write",
    [
        lambda api: api.flush(),
        lambda api: api.refresh(pull=True),
        lambda api: api.run("team/p/run1").delete(),
        lambda api: api.run("team/p/run1").append_history([{"loss": 1}]),
        lambda api: api.create_run(project="p", entity="team"),
        lambda api: api.run("team/p/run1").file("model.bin").delete(),
        lambda api: api.registries(),
    ],
)
def test_it_writes_nothing_and_asks_no_server(site: Site, write: Any) -> None:
    with pytest.raises(mirror.CommError) as raised:
        write(site.there)
    assert str(raised.value) in (
        f"the mirror at {site.door.url} does not hold this, or it is a change; {INSTEAD}",
        f"the mirror at {site.door.url} is only read: it pulls by itself, or with `mirror sync` on its machine",
    )


def test_an_edited_run_is_not_written(site: Site) -> None:
    run = site.there.run("team/p/run1")
    run.config["lr"] = 7
    with pytest.raises(mirror.CommError, match="only reads what is mirrored"):
        run.update()
    assert site.there.run("team/p/run1").config == {"lr": 1}


def test_few_requests_are_sent(site: Site) -> None:
    """How many statements common calls take: over a slow network, this is what they cost."""
    api = site.there
    runs = api.runs("my-team/vision", {"config.lr": {"$gt": 0}})
    connection = api._view.snapshot._connection
    sent = [connection.requests]
    for work in (
        lambda: [(run.name, run.config, run.summary) for run in runs],
        runs[0].history,
        lambda: [run.history() for run in runs],
        lambda: api.run("my-team/vision/vision01").history(keys=["loss"]),
    ):
        work()
        sent.append(connection.requests - sum(sent))
    assert len(runs) == 5
    assert sent == [6, 2, 4, 2, 5]
