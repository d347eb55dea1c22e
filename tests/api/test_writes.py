"""What is written goes to the server, then into the mirror; what the server refuses changes neither."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import mirror
from mirror.errors import ArgumentError, SyncError, UsageError
from mirror.sandbox import sample
from tests.api.conftest import Bench, bench

PATH = "my-team/vision/vision01"


def on_server(small: Bench, run_id: str = "vision01") -> Any:
    return small.world.run("my-team", "vision", run_id)


def mirrored(small: Bench) -> list[Any]:
    """Everything that the mirror shows of runs and their history."""
    facts = "run_id, name, notes, tags, group_name, job_type, config, summary, state, deleted_at, history_rows"
    return [
        small.rig.sql(f"select {facts} from runs order by 1"),
        small.rig.sql("select run_id, key, count(*), sum(step) from history group by all order by all"),
    ]


def test_update_writes_every_kind_of_change(small: Bench, api: Any) -> None:
    """The server has it, the object shows it, and so does everybody who opens the mirror from then on."""
    there, run = on_server(small), api.run(PATH)
    before, telemetry = dict(there.summary), there.config_document["_wandb"]["value"]
    run.config["lr"] = 1e-3
    run.config["neu"] = {"a": [1, None], "größe": math.inf}
    del run.config["seed"]
    run.summary["acc"] = 0.9
    run.summary["best"] = {"epoch": 3}
    run.tags.append("x")
    run.tags.remove("baseline")
    run.name, run.notes, run.group, run.job_type, run.description = "neuer Name", "", "g2", "eval", "what it is"
    assert "acc" not in there.summary
    run.update()
    assert there.config == {
        "lr": 1e-3,
        "batch_size": 64,
        "augment": False,
        "neu": {"a": [1, None], "größe": math.inf},
        "model": {"name": "resnet", "depth": 34, "heads": [4, 8]},
    }
    assert there.config_document["_wandb"]["value"] == telemetry
    assert there.summary == {**before, "acc": 0.9, "best": {"epoch": 3}}
    labels = there.labels
    assert (there.tags, labels.display_name, labels.notes, labels.group, labels.job_type, labels.description) == (
        ["x"], "neuer Name", "", "g2", "eval", "what it is",
    )  # fmt: skip
    for other in (run, api.run(PATH), mirror.Api().run(PATH)):
        assert (other.config, dict(other.summary)) == (there.config, there.summary)
        assert (other.name, other.notes, other.tags, other.group, other.job_type, other.description) == (
            "neuer Name", "", ["x"], "g2", "eval", "what it is",
        )  # fmt: skip
    assert [found.id for found in api.runs("my-team/vision", {"config.neu.a": 1, "tags": "x"})] == ["vision01"]


def test_only_changes_are_sent(small: Bench, api: Any) -> None:
    """What somebody else changed since the last sync stays; a run that was only looked at is not written."""
    there, run = on_server(small), api.run(PATH)
    there.edit(config={**there.config, "theirs": 1}, tags=["baseline", "theirs"], notes="theirs")
    there.set_summary({**there.summary, "theirs": 2})
    small.server.reset_counts()
    assert (run.config["lr"] > 0, run.tags, run.name) == (True, ["baseline"], "brisk-wind-2")
    run.update()
    assert small.server.requests["UpsertBucket"] == 0
    run.config["ours"] = run.summary["ours"] = 3
    run.tags.append("ours")
    run.update()
    assert small.server.requests["UpsertBucket"] == 1
    assert (there.config["theirs"], there.config["ours"], there.tags) == (1, 3, ["baseline", "theirs", "ours"])
    assert (there.summary["theirs"], there.summary["ours"], there.labels.notes) == (2, 3, "theirs")
    assert (run.config["theirs"], run.summary["theirs"], run.notes) == (1, 2, "theirs")


def test_the_summary_is_written_by_its_own_update(small: Bench, api: Any) -> None:
    """Other changes wait for the run's."""
    there, run = on_server(small), api.run(PATH)
    summary = run.summary
    run.notes = "later"
    summary.update({"acc": 0.5, "loss": -1.0})
    assert (there.summary["acc"], there.summary["loss"], there.labels.notes) == (0.5, -1.0, "The run to beat")
    summary.update({"acc": 0.6}, overwrite=False)
    assert (there.summary["acc"], summary["acc"], summary.acc, run.notes) == (0.5, 0.5, 0.5, "later")
    del summary["acc"]
    summary.deep = {"er": 1}
    summary.update()
    assert ("acc" in there.summary, there.summary["deep"], dict(run.summary)) == (False, {"er": 1}, there.summary)
    run.update()
    assert there.labels.notes == "later"


def test_values_of_numpy_and_their_like(small: Bench, api: Any) -> None:
    """Become plain; what JSON cannot say is named, and nothing is sent."""
    import numpy as np

    there, run = on_server(small), api.run(PATH)
    run.summary["np"] = {"a": np.float32(0.5), "b": np.arange(3), "c": np.bool_(True), "d": np.int64(2**60)}
    run.config["when"] = datetime(2026, 1, 2)
    run.config["pair"] = (1, 2)
    run.update()
    assert there.summary["np"] == {"a": 0.5, "b": [0, 1, 2], "c": True, "d": 2**60}
    assert (there.config["when"], there.config["pair"]) == ("2026-01-02T00:00:00", [1, 2])
    small.server.reset_counts()
    for key, value, message in (
        ("x", object(), "config.x: object is not JSON-serialisable"),
        ("y", {1: 2}, "config.y: the key 1 is not a string"),
    ):
        run = mirror.Api().run(PATH)
        run.config[key] = value
        with pytest.raises(ArgumentError, match=message):
            run.update()
    assert small.server.requests.total() == 0


def test_a_refused_write_changes_nothing(small: Bench, api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CommError, with the original exception, and the mirror as it was."""
    before, there = mirrored(small), on_server(small)
    notes = there.labels.notes
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    run = mirror.Api(allow_delete=True).run(PATH)
    for write in (
        lambda: setattr(run, "notes", "x") or run.update(),
        lambda: run.summary.update({"a": 1}),
        lambda: run.append_history([{"loss": 1}]),
        run.delete,
    ):
        with pytest.raises(mirror.CommError) as caught:
            write()
        assert type(caught.value.exc).__name__ == "HTTPStatusError"
    assert (mirrored(small), there.labels.notes) == (before, notes)
    assert run.notes == "x"  # still held, for another try


def test_a_run_that_is_gone_is_not_written(small: Bench, api: Any) -> None:
    """Deleted on the server since the last sync."""
    run = api.run(PATH)
    small.world.delete_run("my-team", "vision", "vision01")
    run.notes = "x"
    with pytest.raises(mirror.CommError, match="has no run my-team/vision/vision01") as caught:
        run.update()
    assert caught.value.exc is not None


def test_a_write_gets_over_faults(small: Bench, api: Any) -> None:
    """A gateway that fails, an answer that is lost."""
    for kind in ("502", "reset"):
        small.server.faults.add(kind, operation="UpsertBucket")
    run = api.run(PATH)
    run.notes = "through"
    run.update()
    assert (on_server(small).labels.notes, api.run(PATH).notes) == ("through", "through")
    assert small.server.faults.counts == {"502": 1, "reset": 1}


def test_delete_takes_a_flag(small: Bench, api: Any) -> None:
    """The server forgets the run, the mirror keeps it, marked."""
    with pytest.raises(UsageError, match="allow_delete=True"):
        api.run(PATH).delete()
    assert on_server(small) is not None
    deleting = mirror.Api(allow_delete=True)
    run = deleting.run(PATH)
    run.delete()
    assert [there.run_id for there in small.world.runs("my-team", "vision")] == [
        "vision00", "vision02", "vision03", "vision04",
    ]  # fmt: skip
    assert (run.deleted, len(run.history())) == (True, 100)
    assert [found.id for found in deleting.runs("my-team/vision")] == ["vision04", "vision03", "vision02", "vision00"]
    assert len(deleting.runs("my-team/vision", deleted=True)) == 5
    with pytest.raises(mirror.CommError, match="was deleted on the server"):
        mirror.Api().run(PATH)
    assert mirror.Api().run(PATH, deleted=True).name == "brisk-wind-2"


def test_rows_are_appended_to_a_run_that_has_ended(small: Bench, api: Any) -> None:
    """Counting on from its last step, and into its summary."""
    there, run = on_server(small), api.run(PATH)
    run.append_history([{"loss": 0.5, "eval/bleu": math.nan}, {"loss": 0.25, "_step": 120, "_timestamp": 5.0}])
    rows = there.rows()[100:]
    assert [(row["_step"], row["loss"]) for row in rows] == [(100, 0.5), (120, 0.25)]
    assert (there.state, there.summary["loss"], there.summary["_step"]) == ("finished", 0.25, 120)
    assert [row["loss"] for row in run.scan_history(min_step=100)] == [0.5, 0.25]
    assert (run.summary["loss"], run.lastHistoryStep, len(api.run(PATH).history())) == (0.25, 120, 102)
    failed = api.run("my-team/vision/vision02")
    failed.append_history([{"loss": 9}])
    assert (failed.state, failed.lastHistoryStep) == ("failed", 100)
    for rows, message in (([{"_step": 7}], "step 7 does not come after step 120"), ([3], "is a dictionary, not int")):
        with pytest.raises(ArgumentError, match=message):
            run.append_history(rows)
    with pytest.raises(mirror.CommError, match="vision03 is running"):
        api.run("my-team/vision/vision03").append_history([{"loss": 1}])


def test_files_come_from_the_server(small: Bench, api: Any, tmp_path: Path) -> None:
    """Listed, downloaded, never outside of the folder."""
    there = on_server(small)
    for name, content in (("notes/read me.txt", "grüße"), ("../evil.txt", "x"), ("a.json", "{}")):
        there.add_file(name, content)
    run = api.run(PATH)
    assert [file.name for file in run.files(pattern="%.json")] == ["a.json", "wandb-metadata.json"]
    with run.file("notes/read me.txt").download(root=str(tmp_path)) as handle:
        assert handle.read() == "grüße"
    with pytest.raises(ArgumentError, match="replace=True"):
        run.file("notes/read me.txt").download(root=str(tmp_path))
    with pytest.raises(ArgumentError, match="leads out of"):
        run.file("../evil.txt").download(root=str(tmp_path / "in"))
    with pytest.raises(mirror.CommError, match="has no file nope"):
        run.file("nope")
    assert (run.metadata, api.run("my-team/oddities/empty001").metadata) == (there.metadata(), None)


def test_mirrored_lists_of_files_need_no_server_but_their_content_does(tmp_path: Path) -> None:
    world = sample.small()
    for name, content in (("notes/read me.txt", "grüße"), ("a.json", "{}")):
        world.run("my-team", "vision", "vision01").add_file(name, content)
    with bench(world, files=True) as made:
        run = mirror.Api().run(PATH)
        made.server.reset_counts()
        names = ["a.json", "notes/read me.txt", "wandb-metadata.json"]
        assert [file.name for file in run.files()] == names
        assert [(file.size, file.mimetype) for file in run.files(pattern="%.t_t")] == [(7, "text/plain")]
        assert sum(made.server.requests.values()) == 0
        with run.file("notes/read me.txt").download(root=str(tmp_path)) as handle:
            assert handle.read() == "grüße"
        assert run.file("a.json").url == f"{made.server.url}/files/{PATH}/a.json"
        del world.run("my-team", "vision", "vision01").files["a.json"]
        with pytest.raises(mirror.CommError, match=r"no longer has a file a\.json"):
            run.file("a.json").read()
        made.server.stop()
        assert [file.name for file in mirror.Api().run(PATH).files()] == names


def test_a_write_that_is_not_mirrored_yet_says_so(small: Bench, api: Any) -> None:
    """A mirror that another process writes to takes the change later, and the error says that the write was done."""
    run = api.run(PATH)
    run.notes = "done"
    script = (
        "import sys; from pathlib import Path; from mirror.settings.home import Home; from mirror.store.store import Store\n"
        "root = Path(sys.argv[1]); store = Store.open(Home(root, root / 'config.toml')); print('open', flush=True)\n"
        "sys.stdin.read(); store.close()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(small.rig.home.data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(SyncError, match="was written to the server, but is not mirrored yet"):
            run.update()
        assert on_server(small).labels.notes == "done"
    finally:
        holder.communicate()


def test_what_was_only_looked_at_is_never_written_back(small: Bench, api: Any) -> None:
    """Between two writes of one object, somebody else changes what it has shown: that stays, and is shown.

    A value that was set to the number that it is already, of another type, was not changed either.
    """
    import numpy as np

    there, mine = on_server(small), api.run(PATH)
    assert (mine.config["seed"], mine.tags, mine.notes) == (1, ["baseline"], mine.notes)
    mine.config["lr"] = np.float64(mine.config["lr"])
    others = mirror.Api().run(PATH)
    others.config["seed"], others.config["lr"], others.notes = 999, 0.5, "theirs"
    others.config["other"] = 5
    others.tags.append("theirs")
    others.update()
    mine.summary.update({"k": 1})
    assert (mine.config["seed"], mine.config["lr"], mine.config["other"], mine.notes) == (999, 0.5, 5, "theirs")
    mine.append_history([{"late": 1.0}])
    mine.update()
    assert (there.config["seed"], there.config["lr"], there.config["other"]) == (999, 0.5, 5)
    assert there.tags == ["baseline", "theirs"]
    assert (there.summary["k"], there.labels.notes) == (1, "theirs")


def test_what_is_not_written_yet_outlives_other_writes(small: Bench, api: Any) -> None:
    """Changes of config, summary, tags and texts wait for `update`, whatever is written or taken in before it."""
    there, run = on_server(small), api.run(PATH)
    run.config["pending"], run.summary["pending"], run.name = 6, 5, "waits"
    del run.config["seed"]
    run.tags.remove("baseline")
    run.append_history([{"q": 1.0}])
    assert "pending" not in there.summary
    assert (run.config["pending"], run.summary["pending"], run.summary["q"], run.name) == (6, 5, 1.0, "waits")
    run.update()
    assert (there.config["pending"], there.summary["pending"], there.summary["q"]) == (6, 5, 1.0)
    assert ("seed" in there.config, there.tags, there.labels.display_name) == (False, [], "waits")


def test_held_dictionaries_and_lists_stay_those_of_the_run(small: Bench, api: Any) -> None:
    """Config, summary and tags that were kept in variables take changes after an `update` as before it."""
    there, run = on_server(small), api.run(PATH)
    config, summary, tags = run.config, run.summary, run.tags
    for name in ("one", "two"):
        config[name], summary[name] = 1, 2
        tags.append(name)
        run.update()
    assert (run.config is config, run.summary is summary, run.tags is tags) == (True, True, True)
    assert [there.config[name] + there.summary[name] for name in ("one", "two")] == [3, 3]
    assert there.tags == ["baseline", "one", "two"]


@pytest.mark.parametrize(("field", "value"), [("tags", "abc"), ("tags", 3), ("config", "abc")])
def test_what_can_be_no_config_or_tags_is_refused(small: Bench, api: Any, field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        setattr(api.run(PATH), field, value)
