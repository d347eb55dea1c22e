"""One small published mirror for the commands that only look: made by the store once for all modules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from mirror.settings.home import Home
from mirror.store import history as history_store
from mirror.store import projects
from mirror.store import runs as runs_store
from mirror.store.records import ProjectKey
from mirror.store.store import Store
from tests.query.conftest import SYNCED, page, run

VISION, AUDIO = ProjectKey("team", "vision"), ProjectKey("team", "audio")


def rate(number: int, **more: Any) -> dict[str, Any]:
    return {"lr": number / 10, "optimizer": {"name": "adam"}, "layers": [1, 2], **more}


RUNS = [
    run(VISION, "aaa", 0, name="baseline", config=rate(1, seed=0), summary={"acc": 0.5, "val/loss": 1.5}, tags=("base",)),
    run(VISION, "bbb", 1, name="deep", config=rate(2, seed=1), summary={"acc": 0.75, "val/loss": 1.5}, state="running"),
    run(VISION, "ccc", 2, name="twice", config=rate(2, seed=2), summary={"acc": 0.7}, state="failed"),
    run(VISION, "ddd", 3, name="twice", config=rate(2, seed=3), summary={"acc": 0.6}),
    run(VISION, "eee", 4, name="aaa", config=rate(5, seed=4), summary={"acc": 0.1}),
    run(VISION, "fff", 5, name="0.1/0", config=rate(5, seed=5), summary={"acc": 0.1}),
    run(VISION, "old", 6, name="deep", config=rate(9, seed=9), summary={}),
    run(AUDIO, "ggg", 7, name="song", config={"lr": 0.3, "only_audio": True}, summary={"wer": 0.2}, server_events=0),
]  # fmt: skip


@pytest.fixture(scope="session")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two projects of eight runs, one of them deleted; `aaa` and `bbb` have history."""
    data = tmp_path_factory.mktemp("looked") / "mirror"
    home = Home(data, data / "config.toml")
    store = Store.open(home)
    with store.transaction() as tx:
        for key in (VISION, AUDIO):
            projects.add(tx, key)
            runs_store.upsert(tx, [record for record in RUNS if record.project == key.project], now=SYNCED)
            projects.record_success(tx, key, SYNCED)
        logged = {"loss": {step: 1.0 / (step + 1) for step in range(8)}, "note": {1: "début"}}
        history_store.append(tx, VISION, [page("aaa", logged), page("bbb", {"loss": {0: 3.0, 2: float("nan")}})])
        history_store.append(tx, AUDIO, [page("ggg", {"wer": {0: 0.5}})])
        runs_store.mark_deleted(tx, VISION, ["old"], at=SYNCED)
    store.seal()
    store.publish()
    store.close()
    return home


@pytest.fixture
def look(cli: Callable[..., Any], looked: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command in this process, over that mirror."""
    monkeypatch.setenv("MIRROR_HOME", str(looked.data))
    return cli


def created(number: int) -> str:
    """The creation time of the run with this number, as messages show it."""
    return f"{datetime(2026, 1, 1) + timedelta(hours=number):%Y-%m-%d %H:%M}"
