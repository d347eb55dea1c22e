"""What takes space, and whether a run may be deleted on the server: `mirror storage`, `mirror verify --complete`."""

from __future__ import annotations

import json
import shutil

import pytest

from mirror.settings.home import Home
from mirror.settings.values import artifacts
from mirror.store import contents
from mirror.store.contents import Selection
from mirror.sync.context import Scope
from tests.content.rig import ContentRig, content_rig, sha256
from tests.content.test_tables import table_file
from tests.sync.test_passes import add

pytestmark = pytest.mark.xdist_group("complete")

CONFIG = """projects = ["team/p"]
[sync]
files = "content"
artifacts = "content"
console = true
system_metrics = true
"""
EVERYTHING = Selection(("*",), artifacts=artifacts("content").patterns)
WEIGHTS = b"weights" * 10


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two runs that have ended, mirrored with everything that W&B has of them."""
    with content_rig(tmp_path_factory.mktemp("whole") / "mirror") as rig:
        rig.lists = Scope(files=True, artifacts=True, console=True, system_metrics=True, reconcile_interval=0.0)
        for name in ("one", "two"):
            run = add(rig, name, rows=3)
            table_file(run, "preds", 3, ["id"], [[1]])
            run.add_file("notes.txt", "the same text")
            run.add_file(f"media/images/{name}.png", name * 10)
            run.write_console(0, ["a line", "another"])
            run.log_system({"system.cpu": 1.0})
        references = {"far": ("s3://bucket/far", 1000)}
        rig.world.add_artifact("team", "p", "model", "net", {"w.bin": WEIGHTS}, by=run, references=references)
        outcome = rig.pull(EVERYTHING)
        assert (outcome.failed, outcome.error) == ({}, None)
        rig.home.config.write_text(CONFIG)
        yield rig


@pytest.fixture
def rig(whole, tmp_path, monkeypatch, home):
    """A copy of that mirror, which may be changed; its config wants everything."""
    shutil.copytree(whole.home.data, tmp_path / "copy")
    for name, value in (
        ("MIRROR_HOME", str(tmp_path / "copy")),
        ("WANDB_API_KEY", whole.sandbox.key),
        ("WANDB_BASE_URL", whole.sandbox.url),
    ):
        monkeypatch.setenv(name, value)
    made = ContentRig(tmp_path / "copy", whole.sandbox)
    assert made.home == Home.find({"MIRROR_HOME": str(tmp_path / "copy")})
    return made


def verdicts(cli, *arguments):
    """What is missing of each run: what, detail and advice; and the exit code."""
    done = cli("verify", *arguments, "--complete", "--json")
    (project,) = json.loads(done.stdout)["projects"]
    assert all(run["safe_to_delete"] == (not run["missing"]) for run in project["complete"])
    missing = {run["run_id"]: [tuple(one.values()) for one in run["missing"]] for run in project["complete"]}
    return missing, done.exit_code


def test_a_run_that_is_here_with_everything_is_safe_to_delete(rig, cli):
    done = cli("verify", "--complete")
    assert (done.exit_code, done.stdout.splitlines()) == (
        0,
        [
            "safe to delete on W&B: team/p/one (4 history rows, 3 files, 77 B)",
            "safe to delete on W&B: team/p/two (4 history rows, 3 files, 1 artifact, 147 B)",
        ],
    )
    assert "team/p: 2 of 2 runs safe to delete on W&B\n" in done.stderr
    assert verdicts(cli, "team/p/one") == ({"one": []}, 0)


def test_what_the_config_leaves_out_is_named_with_its_setting(whole, tmp_path, monkeypatch, cli, rig):
    home = tmp_path / "bare"
    monkeypatch.setenv("MIRROR_HOME", str(home))
    home.mkdir()
    (home / "config.toml").write_text('projects = ["team/p"]\n[sync]\nhistory = ["loss"]\n')
    assert cli("sync").exit_code == 0
    missing, code = verdicts(cli)
    files = "3 not here ({} bytes), such as media/images/{}.png"
    common = [
        ("history", "only these keys are mirrored: loss", 'set sync.history = ["*"]'),
        ("system metrics", "1 lines are not mirrored", "set sync.system_metrics = true"),
        ("console", "2 lines are not mirrored", "set sync.console = true"),
    ]
    artifact = ("artifact model/net:v0", "its list of files is not mirrored", 'set sync.artifacts = "content"')
    assert code == 1
    assert missing == {
        "one": [*common, ("files", files.format(77, "one"), 'set sync.files = "content"')],
        "two": [*common, ("files", files.format(77, "two"), 'set sync.files = "content"'), artifact],
    }


def test_content_that_is_lost_or_damaged_is_not_proven(rig, cli):
    weights = rig.home.blobs / sha256(WEIGHTS)[:2] / sha256(WEIGHTS)[2:]
    weights.chmod(0o600)
    weights.write_bytes(b"damaged" * 10)
    text = sha256(b"the same text")
    (rig.home.blobs / text[:2] / text[2:]).unlink()
    missing, code = verdicts(cli, "team/p/one", "team/p/two")
    repair = "run `mirror verify --repair`: here is"
    lost = ("files", "1 not here (13 bytes), such as notes.txt", f"{repair} no file")
    detail = f"1 not here ({len(WEIGHTS)} bytes), such as w.bin"
    changed = ("artifact model/net:v0", detail, f"{repair} a file that was changed since it was written")
    assert (missing, code) == ({"one": [lost], "two": [lost, changed]}, 1)


def test_a_run_that_changes_or_is_outside_of_the_filters_is_not_safe(tmp_path, cli, monkeypatch):
    with content_rig(tmp_path / "mirror") as rig:
        for name, value in (
            ("MIRROR_HOME", str(rig.home.data)),
            ("WANDB_API_KEY", rig.sandbox.key),
            ("WANDB_BASE_URL", rig.sandbox.url),
        ):
            monkeypatch.setenv(name, value)
        for name in ("ended", "lives", "later", "other"):
            run = add(rig, name, rows=2, state="running" if name == "lives" else "finished")
            run.add_file("a.txt", name)
        rig.pull()
        rig.world.run("team", "p", "later").add_file("a.txt", "changed since")
        add(rig, "new", rows=1)
        rig.home.config.write_text(
            'projects = ["team/p"]\n[sync]\nfiles = "content"\nfilters = {display_name = {"$ne" = "other"}}\n'
        )
        rig.world.run("team", "p", "other").edit(display_name="other")
        missing, code = verdicts(cli)
        assert code == 1
        assert missing["ended"] == []
        assert [one[0] for one in missing["lives"]] == ["state"]
        assert [(one[0], one[1]) for one in missing["later"]] == [("files", "1 not here (13 bytes), such as a.txt")]
        assert [one[0] for one in missing["new"]] == ["run"]
        assert (
            "run",
            "it was mirrored under another filter, and is not updated any more",
            "it cannot be proven",
        ) in missing["other"]


def test_complete_changes_nothing(rig, cli):
    for arguments, message in (
        (("--repair",), "--complete only looks"),
        (("--local",), "leave out --deep, --repair, --complete"),
    ):
        done = cli("verify", "--complete", *arguments, "x")
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr


def test_a_project_that_cannot_be_looked_at_has_no_runs_to_count(rig, cli):
    done = cli("verify", "--complete", "team/none")
    assert (done.exit_code, done.stdout, "safe to delete" in done.stderr) == (1, "", False)
    assert done.stderr.startswith("error: team/none is not on ")


def test_a_dry_run_counts_the_listed_files_that_it_would_download(rig, cli):
    (found,) = json.loads(cli("sync", "--dry-run", "--json").stdout)
    assert (found["files"], found["file_bytes"]) == (0, 0)
    forgotten = [sha256(WEIGHTS), sha256(b"one" * 10)]
    with rig.store() as store:
        with store.transaction() as tx:
            contents.drop(tx, forgotten)
        store.publish()
    done = cli("sync", "--dry-run", "--json")
    (found,) = json.loads(done.stdout)
    assert (found["files"], found["file_bytes"]) == (2, len(WEIGHTS) + 30)
    assert "and download 2 files (100 B) of those listed" in done.stderr


def test_storage_shows_what_takes_space_on_the_server_and_here(rig, cli):
    parquet = rig.sql("select max(mirrored_bytes) from storage where kind = 'table'")[0][0]
    assert json.loads(cli("storage", "--json").stdout) == [
        size("team/p", "table", "parquet", 2, None, 2 * parquet, parquet),
        size("team/p", "artifact", "model", 2, 70, 70, 70),
        size("team/p", "file", "media/table", 2, 68, 68, 34),
        size("team/p", "file", "media/images", 2, 60, 60, 60),
        size("team/p", "file", ".txt", 2, 26, 26, 13),
    ]
    done = cli("storage", "--by", "run,kind", "team/p/two", "--csv")
    assert done.stdout.splitlines() == [
        "run,kind,files,server_bytes,mirrored_bytes,stored_bytes",
        f"team/p/two,table,1,,{parquet},0",
        "team/p/two,file,3,77,77,30",
        "team/p/two,artifact,2,70,70,70",
    ]
    assert "equal content that is stored once saves" in done.stderr
    twice = json.loads(cli("storage", "--twice", "--json").stdout)
    assert [(one["files"], one["saved_bytes"], one["first_file"]) for one in twice] == [
        (2, 34, "team/p/one: media/table/preds_3_1.table.json"),
        (2, 13, "team/p/one: notes.txt"),
    ]
    refused = cli("storage", "--by", "user")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--by user: use one or several of project, run, kind, type, artifact" in refused.stderr


def size(project, kind, name, files, server, mirrored, stored):
    keys = ("project", "kind", "type", "files", "server_bytes", "mirrored_bytes", "stored_bytes")
    return dict(zip(keys, (project, kind, name, files, server, mirrored, stored), strict=True))


def test_history_takes_the_share_of_its_segments(rig):
    with rig.store() as store:
        store.tail_values = 0
        store.seal()
        store.publish()
    found = rig.sql("select run_id, files, mirrored_bytes from storage where kind = 'history' order by run_id")
    ((segment,),) = rig.sql("select sum(bytes)::bigint from store.segments")
    assert [(run_id, files) for run_id, files, _ in found] == [("one", 1), ("two", 1)]
    assert abs(sum(size for *_, size in found) - segment) <= 1
