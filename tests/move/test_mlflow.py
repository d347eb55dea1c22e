"""Runs in MLflow: what becomes of each part, again and again, and after an interruption."""

from __future__ import annotations

import json
import math
import shutil
import socket

import pytest

from mirror.move.mlflow_names import cleaned, unique
from tests.content.rig import content_rig
from tests.move.world import FILES, NOON, SECONDS

pytestmark = pytest.mark.xdist_group("move")

mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of plain files, as the URI of a tracking server."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return (tmp_path / "store").as_uri()


def runs(store, experiment="team/p"):
    """Each run of an experiment by its path in W&B."""
    client = mlflow.MlflowClient(store)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=100)
    return client, {run.data.tags["wandb_mirror.run_path"].rpartition("/")[2]: run for run in found}


def series(client, run, key):
    """Step, value and milliseconds of a metric."""
    return [(one.step, one.value, one.timestamp) for one in client.get_metric_history(run.info.run_id, key)]


def files(client, run, above=None):
    return [
        path
        for one in client.list_artifacts(run.info.run_id, above)
        for path in (files(client, run, one.path) if one.is_dir else [one.path])
    ]


def test_a_project_becomes_an_experiment(mirrored, home, cli, store):
    shutil.rmtree(home.data, ignore_errors=True)
    home.data.symlink_to(mirrored.home.data)
    done = cli("export", "team/p", "--mlflow", store)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "exporting 8 runs: 18 history rows (94 values), 7 console lines, 4 files (0.0 MB)",
        "  keys without numbers (flag, hist, image, list and 2 more; 6 values): true and false become 1 and 0, text, lists and objects are in the artifact wandb/history_text.jsonl",
        "  characters that MLflow refuses in names become _, as in 'ü_' for 'ü\\n'",
        "  states: 1 crashed as FAILED, 1 killed as KILLED, 1 preempted as KILLED",
        "  integers past 2^53 are rounded; servers with a database store infinities as 1.8e308",
        "  not exported: artifacts, reports, sweeps themselves, define_metric",
        "warning: left out: 1 run that the server deleted; name a run to export it",
        f"{store}: 8 runs new, 0 continued, 0 unchanged; 60 metric values, 23 files",
    ]
    client, found = runs(store)
    assert {name[:9]: run.info.status for name, run in found.items()} == {
        "full": "FINISHED",
        "failed": "FAILED",
        "killed": "KILLED",
        "crashed": "FAILED",
        "preempted": "KILLED",
        "running": "RUNNING",
        "swept": "FINISHED",
        "an-id:wit": "FINISHED",
    }
    full = found["full"]
    noon = int(SECONDS * 1000)
    assert (full.info.run_name, full.info.start_time, full.info.end_time > noon) == ("a name, ü", noon, True)
    assert full.data.params == {
        "lr": "0.1",
        "one": "1.0",
        "none": "null",
        "big": str(2**60),
        "nan": "NaN",
        "net.layers": '[1,{"a":[]}]',
    }
    own = {key: text for key, text in full.data.tags.items() if not key.startswith("wandb_mirror.")}
    assert own == {
        "mlflow.runName": "a name, ü",
        "mlflow.note.content": "some\nnotes",
        "mlflow.user": "ada",
        "mlflow.source.name": "train.py",
        "mlflow.source.git.commit": "c0ffee",
        "mlflow.source.git.repoURL": "https://github.com/team/p.git",
        "wandb.state": "finished",
        "wandb.group": "g",
        "wandb.job_type": "train",
        "wandb.host": "node1",
        "wandb.url": full.data.tags["wandb.url"],
        "tag.x": "true",
        "tag.y_z": "true",
    }
    assert found["swept"].data.tags["wandb.sweep"] == "sw1"
    assert series(client, full, "loss") == [
        *((at, 1 / (at + 1), noon + at * 100) for at in range(9)),
    ]
    assert series(client, full, "summary/loss") == [(700, 42.0, noon + 70_000)]
    assert series(client, full, "flag") == [(500, 1.0, noon + 50_000)]
    assert series(client, full, "ü_") == [(600, -0.5, noon + 60_000)]
    assert [value for _, value, _ in series(client, full, "system/gpu.0.gpu")] == [7.0, 7.0]
    assert math.isnan(series(client, full, "odd")[0][1])
    assert series(client, full, "down")[0][1] == -math.inf
    artifacts = mirrored.home.data.parent / "artifacts"
    artifacts.mkdir(exist_ok=True)
    assert sorted(files(client, full)) == sorted(
        [
            *(f"files/{name}" for name in [*FILES, "wandb-metadata.json"]),
            *(f"wandb/{name}" for name in ("config.json", "console.txt", "history_text.jsonl", "metadata.json")),
            "wandb/summary.json",
        ]
    )
    folder = client.download_artifacts(full.info.run_id, "", str(artifacts))
    texts = [json.loads(line) for line in (artifacts / "wandb" / "history_text.jsonl").read_text().splitlines()]
    assert folder
    assert [(one["_step"], one["key"]) for one in texts] == [
        (500, "none"),
        (500, "word"),
        (501, "list"),
        (700, "hist"),
        (700, "image"),
    ]
    assert (artifacts / "files" / "media" / "images" / "i.png").read_bytes() == FILES["media/images/i.png"].encode()
    assert (artifacts / "wandb" / "console.txt").read_text().splitlines()[:2] == ["first", "a warning"]


def test_the_next_export_writes_what_is_new_and_an_interrupted_one_continues(home, cli, store, monkeypatch):
    from mirror.move import mlflow_export

    monkeypatch.setattr(mlflow_export, "METRICS_AT_ONCE", 3)
    with content_rig(home.data) as rig:
        run = rig.world.add_run("team", "p", run_id="one", config={"lr": 1, "text": "x" * 6001}, created_at=NOON)
        run.log_many({"_step": at, "a": at, "b": -at, "_timestamp": SECONDS + at} for at in range(4))
        rig.sync("team/p")
        batches = []
        log = mlflow.MlflowClient.log_batch

        def interrupted(self, run_id, metrics=(), params=(), tags=()):
            if metrics and len(batches) == 2:
                raise KeyboardInterrupt
            batches.extend([len(metrics)] if metrics else [])
            return log(self, run_id, metrics, params, tags)

        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", interrupted)
        assert cli("export", "team/p", "--mlflow", store).exit_code == 130
        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log)
        done = cli("export", "team/p", "--mlflow", store)
        assert "config values of more than 6,000 characters (text) are in the artifact wandb/config.json" in done.stderr
        assert (
            done.stderr.splitlines()[-1] == f"{store}: 0 runs new, 1 continued, 0 unchanged; 2 metric values, 2 files"
        )
        client, found = runs(store)
        assert found["one"].info.status == "RUNNING"
        assert [step for step, _, _ in series(client, found["one"], "b")] == [0, 1, 2, 3]
        run.log({"a": 9, "b": 8}, timestamp=SECONDS + 9)
        run.edit(config={"lr": 2, "new": True}, tags=["late"], notes="a note")
        run.finish()
        rig.sync("team/p")
        again = cli("export", "team/p", "--mlflow", store)
        assert again.exit_code == 1
        assert again.stderr.splitlines()[-2:] == [
            "warning: team/p/one: MLflow keeps the earlier values of 1 params (lr)",
            f"{store}: 0 runs new, 1 continued, 0 unchanged; 2 metric values, 2 files",
        ]
        client, found = runs(store)
        one = found["one"]
        assert (one.info.status, one.data.params) == ("FINISHED", {"lr": "1", "new": "true"})
        assert (one.data.tags["tag.late"], one.data.tags["mlflow.note.content"]) == ("true", "a note")
        assert [value for _, value, _ in series(client, one, "a")] == [0.0, 1.0, 2.0, 3.0, 9.0]
        unchanged = cli("export", "team/p", "--mlflow", store)
        assert (
            unchanged.stderr.splitlines()[-1]
            == f"{store}: 0 runs new, 0 continued, 1 unchanged; 0 metric values, 0 files"
        )


def test_an_address_where_nobody_answers_is_one_line(mirrored, home, cli):
    shutil.rmtree(home.data, ignore_errors=True)
    home.data.symlink_to(mirrored.home.data)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        done = cli("export", "team/p", "--mlflow", f"http://me:secret@{address}")
    assert (done.exit_code, done.stderr) == (
        3,
        f"error: MLflow at http://{address}: nobody answers there; check the address, or start `mlflow server`\n",
    )


def test_names_become_those_that_mlflow_accepts():
    names = ["a", "a/b", "/a", "a//b", "a/../b", "x:y", "x=y", "x_y", "", "ü", "n" * 251, "n" * 252]
    found = unique(names)
    assert found == {
        **{name: name for name in ("a", "a/b", "x_y", "ü")},
        "/a": "_/a",
        "a//b": "a/_/b_2",
        "a/../b": "a/_/b",
        "x:y": "x_y_2",
        "x=y": "x_y_3",
        "": "_",
        "n" * 251: cleaned("n" * 251),
        "n" * 252: cleaned("n" * 252),
    }
    from mlflow.utils.validation import _validate_metric_name

    for name in found.values():
        _validate_metric_name(name)
    assert len(set(found.values())) == len(names)
