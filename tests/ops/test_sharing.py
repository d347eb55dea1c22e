"""Other users of the machine read what `publish.mode` lets them read, and nothing else."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.daemon.conftest import Bench
from tests.daemon.test_daemon import add

PROBE = """
import json, os, sys
os.setgroups([int(g) for g in sys.argv[3:]]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
home = sys.argv[1]
readable = []
for path in json.loads(sys.stdin.read()):
    try:
        open(path, "rb").close()
        readable.append(os.path.relpath(path, home))
    except OSError:
        pass
print(json.dumps(readable))
"""


@pytest.fixture
def shared(bench: Bench):
    """A mirror with a segment, in a folder that everyone may pass through."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        bench.home = Path(folder) / "mirror"
        bench.environ["MIRROR_HOME"] = str(bench.home)
        bench.home.mkdir(mode=0o700)
        add(bench, "one")
        yield bench


def files(home: Path) -> list[str]:
    return sorted(str(path) for path in home.rglob("*") if path.is_file())


def published(home: Path) -> list[str]:
    """The published file and the segments, within the home."""
    found = ["mirror.duckdb", *(os.path.relpath(path, home) for path in files(home) if path.endswith(".parquet"))]
    assert len(found) > 1
    return sorted(found)


def readable(home: Path, *groups: int) -> list[str]:
    """The files of the home that the user `nobody`, in these groups, can open."""
    nobody = pwd.getpwnam("nobody").pw_uid
    command = [sys.executable, "-c", PROBE, str(home), str(nobody), *map(str, groups)]
    done = subprocess.run(command, input=json.dumps(files(home)), capture_output=True, text=True, check=True)
    return sorted(json.loads(done.stdout))


def configure(bench: Bench, publish: str) -> None:
    bench.configure(text=f'projects = ["team/p"]\n[store]\ntail_values = 1\n[publish]\n{publish}\n')


@pytest.mark.skipif(os.getuid() != 0, reason="only root can read as another user")
def test_another_user_reads_the_published_file_and_the_segments_and_nothing_else(shared):
    configure(shared, "")
    assert shared.here("sync").exit_code == 0
    assert readable(shared.home) == []
    group = grp.getgrnam("games").gr_gid
    configure(shared, 'mode = "0640"\ngroup = "games"')
    assert shared.here("sync").exit_code == 0
    assert readable(shared.home) == []
    assert readable(shared.home, group) == published(shared.home)
    configure(shared, 'mode = "0644"')
    add(shared, "two")
    assert shared.here("sync").exit_code == 0
    assert readable(shared.home) == published(shared.home)
    assert stat.S_IMODE((shared.home / "state.duckdb").stat().st_mode) == 0o600


def test_doctor_says_who_cannot_reach_the_files(shared):
    configure(shared, 'mode = "0644"')
    assert shared.here("sync").exit_code == 0

    def sharing():
        found = json.loads(shared.here("doctor", "--json").stdout)
        return [(one["level"], one["message"], one["advice"]) for one in found if one["check"] == "sharing"]

    assert [level for level, *_ in sharing()] == ["ok"]
    shared.home.parent.chmod(0o700)
    parent = shared.home.parent
    ((level, message, advice),) = sharing()
    assert (level, message.rpartition(" ")[2], advice.partition(",")[0]) == (
        "fail",
        str(parent),
        f"`chmod go+x {parent}`",
    )
    parent.chmod(0o755)
    (shared.home / "mirror.duckdb").chmod(0o600)
    assert [level for level, *_ in sharing()] == ["fail"]


@pytest.mark.parametrize(
    ("publish", "problem"),
    [
        (
            'mode = "0666"',
            'publish.mode: must be "0640" (a group reads), "0644" (everyone reads) or the like, not "0666"',
        ),
        ("mode = 640", 'publish.mode: must be "0640" (a group reads), "0644" (everyone reads) or the like, not 640'),
        ('group = "no such"', 'publish.group: there is no group "no such" on this machine'),
    ],
)
def test_a_mode_that_makes_no_sense_is_one_line(shared, publish, problem):
    configure(shared, publish)
    done = shared.here("sync")
    assert (done.exit_code, done.stdout) == (2, "")
    assert problem in done.stderr
