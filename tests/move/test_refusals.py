"""What cannot be exported is named on one line; what can is exported."""

from __future__ import annotations

import re
import shutil

import pytest

from mirror.move.file_names import file_name
from tests.content.rig import content_rig
from tests.move.world import NOON
from tests.reading import rows

pytestmark = pytest.mark.xdist_group("move")


@pytest.fixture
def here(mirrored, home):
    """The mirror of the project as the command's home."""
    shutil.rmtree(home.data, ignore_errors=True)
    home.data.symlink_to(mirrored.home.data)
    return home


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ("--filter", "{}", "-o", "DIR"),
            "--filter, --where and --dry-run go with --wandb or --mlflow, --keep-sweeps with --wandb",
        ),
        (("--wandb", "DIR", "--lake", "DIR"), "--wandb is an export of its own: leave the other destinations out"),
        (("team/p/full", "--wandb", "DIR", "--where", "state=failed"), "--filter and --where choose among the runs of"),
        (("--wandb", "DIR", "--where", "state=lost"), "no run to export"),
        (("--wandb", "DIR", "--where", "state"), "state"),
        (("--wandb", "DIR/full"), "--wandb DIR/full: it is not empty; name a new folder"),
        (("--wandb", "DIR/full/file"), "--wandb DIR/full/file: File exists; name a new folder"),
        (("--wandb", "DIR/full/file/x"), "--wandb DIR/full/file/x: Not a directory; name a new folder"),
    ],
)
def test_a_request_that_makes_no_sense_writes_nothing(here, cli, tmp_path, arguments, error):
    folder = tmp_path / "dir"
    (folder / "full").mkdir(parents=True)
    (folder / "full" / "file").write_text("mine")
    done = cli("export", *(one.replace("DIR", str(folder)) for one in arguments))
    printed = done.stderr.replace(str(folder), "DIR").splitlines()[-1]
    assert printed.startswith("error: ")
    assert error in printed
    assert done.exit_code in (1, 2)
    assert sorted(path.name for path in folder.rglob("*")) == ["file", "full"]


def test_a_dry_run_writes_nothing(here, cli, tmp_path):
    done = cli("export", "team/p", "--wandb", str(tmp_path / "out"), "--where", "state=finished", "--dry-run")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (0, "dry run: nothing was written")
    assert done.stderr.startswith("exporting 3 runs: 13 history rows")
    assert not (tmp_path / "out").exists()


def test_a_run_that_the_server_deleted_is_exported_by_name(here, cli, tmp_path):
    done = cli("-q", "export", "team/p/gone", "--wandb", str(tmp_path / "out"))
    assert (done.exit_code, [path.name for path in (tmp_path / "out").iterdir()]) == (
        0,
        ["offline-run-20260301_120000-gone"],
    )


def test_runs_of_two_projects_with_one_id_get_folders_of_their_own(tmp_path, cli, home):
    with content_rig(home.data) as rig:
        for project in ("p", "q"):
            rig.world.add_run("team", project, run_id="same", created_at=NOON).finish()
        rig.sync("team/p", "team/q")
    assert cli("export", "--wandb", str(tmp_path / "out")).exit_code == 0
    plain = "offline-run-20260301_120000-same"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [plain, f"{plain}-1"]


def test_what_is_not_mirrored_is_named_with_its_setting(tmp_path, cli, home):
    with content_rig(home.data) as rig:
        run = rig.world.add_run("team", "p", run_id="one", created_at=NOON)
        run.log({"loss": 1, "acc": 2})
        run.log_system({"system.cpu": 1})
        run.write_console(0, ["2026-01-02T03:04:05.678901 a line"])
        run.add_file("a.txt", "text")
        run.finish()
        rig.sync("team/p", history=("loss",))
        bare = cli("-q", "export", "--wandb", str(tmp_path / "bare"))
        assert bare.stderr.splitlines() == [
            "warning: only the history keys loss of team/p are mirrored: sync.history in the config selects them",
            'warning: the files of 1 run are not mirrored: set sync.files = "content", then `mirror sync`',
            "warning: the console of 1 run is not mirrored: set sync.console = true, then `mirror sync`",
            "warning: the system metrics of 1 run are not mirrored: set sync.system_metrics = true, then `mirror sync`",
        ]
        rig.sync("team/p", console=True, system_metrics=True, files=True)
        listed = cli("-q", "export", "--wandb", str(tmp_path / "listed"))
        assert listed.stderr.splitlines() == [
            'warning: the content of 1 file is not mirrored: set sync.files = "content", then `mirror sync`'
        ]


def test_a_file_that_cannot_be_written_or_read_does_not_stop_the_rest(tmp_path, cli, home):
    names = ("../x", "/etc/x", "a\0b", "n" * 300, "lost", "sound/ü.txt")
    with content_rig(home.data) as rig:
        run = rig.world.add_run("team", "p", run_id="one", created_at=NOON)
        for name in names:
            run.add_file(name, f"content of {name}")
        run.finish()
        rig.pull()
    [(lost,)] = rows(home.published, "select local_path from files where name = 'lost'")
    (home.data / lost).unlink()
    done = cli("export", "team/p", "--wandb", str(tmp_path / "out"))
    assert done.exit_code == 1
    warnings = [
        line.removeprefix("warning: team/p/one: file ") for line in done.stderr.splitlines() if "file '" in line
    ]
    assert sorted(warnings) == sorted(
        [
            "'../x' leads out of the folder of its run",
            "'/etc/x' leads out of the folder of its run",
            "'a\\x00b' has a name that no file can have",
            f"'{'n' * 300}' cannot be written here: File name too long",
            "'lost' cannot be read in the mirror: No such file or directory; `mirror doctor` looks for what is wrong",
        ]
    )
    [folder] = (tmp_path / "out").iterdir()
    assert (folder / "files" / "sound" / "ü.txt").read_text() == "content of sound/ü.txt"
    assert not list(tmp_path.glob("x"))
    assert not list(folder.glob("x"))


@pytest.mark.parametrize("run_id", ["a/b", "..", "x" * 300, "ü", "a:b"])
def test_a_run_id_that_is_no_file_name_becomes_one(run_id):
    assert re.fullmatch(r"[A-Za-z0-9._=+-]{1,120}-[0-9a-f]{8}|\.\.", file_name(run_id))
    assert file_name(run_id) != file_name(run_id + "_")


def test_a_full_disk_is_one_line_and_leaves_no_half_a_folder(here, cli, tmp_path, monkeypatch):
    from mirror.local.block_writer import BlockWriter

    def full(*_):
        raise OSError(28, "No space left on device", "run-x.wandb")

    monkeypatch.setattr(BlockWriter, "write", full)
    done = cli("export", "team/p", "--wandb", str(tmp_path / "out"))
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        1,
        "error: cannot write run-x.wandb: No space left on device",
    )
    assert list((tmp_path / "out").iterdir()) == []
