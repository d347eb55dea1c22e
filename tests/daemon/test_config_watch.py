"""Config and key are followed wherever their files lie, and nothing that runs is cut off by a change of them."""

from __future__ import annotations

import shutil
import time

import pytest

from mirror.control import Control
from tests.daemon.test_daemon import add

TOLD_ALONE = "import mirror.daemon.sources as sources; sources.LOOK = 3600.0"
"""The daemon then learns of a change from the system alone, and never by looking again."""

NO_WATCHES = """
import mirror.daemon.sources as sources
sources.LOOK = 0.1
def awatch(*_, **__):
    raise OSError("no watches left")
sources.awatch = awatch
"""


def text(project):
    return f'projects = ["team/{project}"]\n[sync]\ninterval = "1h"\n[http]\nlisten = ""\n'


def scheduled(bench):
    return list(Control(bench.home / "mirror.sock").status()["projects"])


def picked_up(bench, project, change):
    """Bring about the change until it is followed: one that comes while a watch is being set up is seen by a look."""
    limit = time.monotonic() + 60
    while scheduled(bench) != [f"team/{project}"]:
        assert time.monotonic() < limit, f"{project} was not picked up"
        change()
        for _ in range(10):
            time.sleep(0.05)
            if scheduled(bench) == [f"team/{project}"]:
                break


def put(path, content):
    """Write a file as an editor does, by a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(content)
    fresh.replace(path)


def link(path, target):
    """Put a link in place of what is there, by a rename."""
    fresh = path.with_name(f"{path.name}.tmp")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(path)


@pytest.mark.parametrize("prelude", [TOLD_ALONE, NO_WATCHES], ids=["watched", "unwatched"])
def test_a_config_is_followed_through_links_and_folders_that_are_replaced(bench, prelude):
    """The home is a link, the config one to a mounted ConfigMap: `config.toml -> ..data/config.toml`, `..data -> v1`."""
    mounted, dotfiles = bench.root / "etc" / "mirror", bench.root / "dotfiles"
    put(mounted / "v1" / "config.toml", text("one"))
    link(mounted / "..data", "v1")
    link(mounted / "config.toml", "..data/config.toml")
    link(bench.home / "config.toml", "../etc/mirror/config.toml")
    link(bench.root / "way", "home")
    bench.environ["MIRROR_HOME"] = str(bench.root / "way")

    def swap_the_map():
        put(mounted / "v2" / "config.toml", text("two"))
        link(mounted / "..data", "v2")

    def replace_the_folder():
        fresh = mounted / "fresh"
        put(fresh / "config.toml", text("three"))
        (mounted / "v2").rename(mounted / f"old{time.monotonic_ns()}")
        fresh.rename(mounted / "v2")

    def replace_a_folder_further_up():
        fresh = bench.root / "etc" / "fresh"
        put(fresh / "config.toml", text("four"))
        mounted.rename(mounted.with_name(f"old{time.monotonic_ns()}"))
        fresh.rename(mounted)

    def make_the_folder():
        shutil.rmtree(dotfiles, ignore_errors=True)
        put(dotfiles / "mirror.toml", text("five"))

    def lead_elsewhere():
        link(bench.home / "config.toml", dotfiles / "mirror.toml")

    with bench.daemon(prelude):
        picked_up(bench, "one", lambda: None)
        picked_up(bench, "two", swap_the_map)
        picked_up(bench, "three", replace_the_folder)
        picked_up(bench, "four", replace_a_folder_further_up)
        lead_elsewhere()  # to where nothing is yet: the running settings stay
        bench.until(lambda: "team/four" in scheduled(bench))
        picked_up(bench, "five", make_the_folder)
        picked_up(bench, "six", lambda: (dotfiles / "mirror.toml").write_text(text("six")))
        (dotfiles / "mirror.toml").unlink()
        control = Control(bench.home / "mirror.sock")
        bench.until(lambda: control.status()["config_error"] is not None)
        assert scheduled(bench) == ["team/six"]
        picked_up(bench, "seven", lambda: put(dotfiles / "mirror.toml", text("seven")))
        assert control.status()["config_error"] is None


def test_a_new_key_is_read_from_netrc_without_a_restart(bench):
    add(bench, "one")
    netrc = bench.root / ".netrc"
    host = bench.server.url.removeprefix("http://")
    del bench.environ["WANDB_API_KEY"]
    former = bench.server.key

    def entry(key):
        return f"machine {host}\n  login user\n  password {key}\n"

    put(netrc, entry(former))
    bench.configure(interval="300ms")
    with bench.daemon(TOLD_ALONE):
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        bench.server._gate.key = fresh = "f" * 40
        bench.until(lambda: "does not accept the API key" in str(bench.sql("select last_error from projects")))
        add(bench, "two")
        bench.until(
            lambda: (put(netrc, entry(fresh)), time.sleep(0.3), bench.sql("select count(*) from runs") == [(2,)])[-1]
        )
        bench.until(lambda: bench.sql("select last_error from projects") == [(None,)])
    log = (bench.home / "mirror.log").read_text()
    assert "new API key applied" in log
    assert former not in log
    assert fresh not in log


def test_a_change_of_the_server_settings_lets_the_passes_under_way_end(bench):
    """Three passes: one that is asking, one that waits for its project's turn, and the first with the new client."""
    for index in range(3):
        add(bench, f"run{index}", rows=5)
    bench.configure(interval="1h")
    bench.server.faults.add("latency", times=None, seconds=0.7)
    with bench.daemon():
        control = Control(bench.home / "mirror.sock")
        events = control.work("sync", ["team/p"])
        next(events)
        bench.configure(text=bench.home.joinpath("config.toml").read_text() + '[server]\ntimeout = "200ms"\n')
        control.reload()
        bench.server.faults.clear()
        (done,) = [event for event in events if event["event"] == "done"]
        assert [(result["exit_code"], result["error"]) for result in done["results"]] == [(0, None)]
        bench.until(lambda: len(control.status()["passes"]) == 1)
        assert control.status()["last_crash"] is None
        assert bench.sql("select count(*), sum(history_rows) from runs") == [(3, 15)]
    assert "has been closed" not in (bench.home / "mirror.log").read_text()
