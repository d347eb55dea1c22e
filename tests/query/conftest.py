"""A small published mirror, made by the store once a session, and one whose history lies in Parquet segments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mirror.settings.home import Home
from mirror.store import history, projects, runs
from mirror.store.records import HistoryPage, ProjectKey, RunRecord
from mirror.store.store import Store

VISION, NLP = ProjectKey("team", "vision"), ProjectKey("team", "nlp")
START = datetime(2026, 1, 1)
SYNCED = datetime(2026, 2, 1)
LOGGED: dict[str, dict[int, Any]] = {
    "loss": {step: 1 / (step + 1) for step in range(10)},
    "Loss": {step: float(step) for step in range(10)},
    "val/acc": {0: 0.5, 4: float("nan"), 8: 0.75},
    "note": {1: "début", 5: 2.5},
    "step": {3: 30.0},
}


def run(project: ProjectKey, run_id: str, number: int, **more: Any) -> RunRecord:
    reported: dict[str, Any] = {
        "name": f"run {number}",
        "state": "finished",
        "created_at": START + timedelta(hours=number),
        "heartbeat_at": START + timedelta(hours=number, minutes=30),
        "updated_at": START + timedelta(hours=number, minutes=30),
        "duration_s": 1800.0,
        "username": "ada",
        "tags": (),
        "config": {"lr": 0.1 / (number + 1), "layers": number, "model": {"depth": 2, "kind": "vit"}},
        "summary": {"acc": number / 4, "val/loss": 1.5},
        **more,
    }
    empty = dict.fromkeys(["group_name", "job_type", "sweep", "notes", "description", "git_commit", "host"])
    return RunRecord(
        entity=project.entity,
        project=project.project,
        run_id=run_id,
        storage_id=f"storage-{run_id}",
        url=f"https://wandb.ai/{project}/runs/{run_id}",
        **{**empty, **reported},
    )


RUNS = [
    run(VISION, "alpha", 0, tags=("base", "é"), notes='said "hi"\nand left'),
    run(VISION, "beta", 1, config={"lr": 0.05, "layers": 1, "mixed": "x", "flag": True}, summary={"acc": float("nan")}),
    run(VISION, "gamma", 2, state="running", config={"lr": 0.02, "layers": 2, "mixed": 3, "flag": False}),
    run(VISION, "gone", 3),
    run(VISION, "twin", 4, config={"lr": 1.0, "layers": 9007199254740993}),
    run(NLP, "twin", 5, username="bob", config={"lr": 0.5, "layers": 5, "text": 'a,b|"c"\t日本'}),
]


def page(run_id: str, logged: dict[str, dict[int, Any]]) -> HistoryPage:
    rows = []
    for key, values in logged.items():
        for step, value in values.items():
            number = value if isinstance(value, float) else None
            rows.append((step, key, number, None if number is not None else f'"{value}"'))
    columns = list(zip(*rows, strict=True))
    schema = [("step", pa.int64()), ("key", pa.string()), ("value", pa.float64()), ("text", pa.string())]
    table = pa.table({name: pa.array(column, kind) for (name, kind), column in zip(schema, columns, strict=True)})
    steps = {step for values in logged.values() for step in values}
    return HistoryPage(run_id, table, rows=len(steps), last_step=max(steps))


def publish(data: Path, tail_values: int = 10_000_000) -> Home:
    home = Home(data, data / "config.toml")
    store = Store.open(home, tail_values=tail_values)
    with store.transaction() as tx:
        for key in (VISION, NLP):
            projects.add(tx, key)
            runs.upsert(tx, [record for record in RUNS if record.project == key.project], now=SYNCED)
            projects.record_success(tx, key, SYNCED)
        history.append(tx, VISION, [page("alpha", LOGGED), page("twin", {"loss": {0: 3.0}})])
        history.append(tx, NLP, [page("twin", {"loss": {0: 4.0, 1: 5.0}})])
        runs.mark_deleted(tx, VISION, ["gone"], at=SYNCED)
    store.seal()
    store.publish()
    store.close()
    return home


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return publish(tmp_path_factory.mktemp("published") / "mirror")


@pytest.fixture(scope="session")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = publish(tmp_path_factory.mktemp("segmented") / "mirror", tail_values=1)
    assert list(home.history.rglob("*.parquet"))
    return home


@pytest.fixture
def mirror(cli: Callable[..., Any], published: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command in this process, over the small mirror."""
    monkeypatch.setenv("MIRROR_HOME", str(published.data))
    return cli
