"""A small world, its mirror, ways to damage the mirror's files, and the content that a repair must bring back."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import duckdb

from mirror.cli import main
from mirror.sandbox import World
from mirror.store.store import Store
from tests import reading

RUN = "(select rid from store.run_records where run_id = 'aaa')"
"""The run that is damaged."""

CONTENT = {
    "runs": "select * exclude (synced_at) from runs order by all",
    "run_tags": "select * from run_tags order by all",
    "config_values": "select * from config_values order by all",
    "summary_values": "select * from summary_values order by all",
    "history": "select * replace (value::varchar as value) from history order by all",
    "history_keys": "select * replace (min::varchar as min, last::varchar as last) from history_keys order by all",
    "system_metrics": "select * from system_metrics order by all",
    "console": "select * from console order by all",
    "projects": "select entity, project, runs, running, history_rows from projects order by all",
    "leaves": "select r.run_id, l.* exclude (rid) from store.leaves l join store.run_records r using (rid) order by all",
    "leaf_keys": "select * from store.leaf_keys order by all",
    "cursors": "select r.run_id, h.* exclude (rid) from store.run_history h join store.run_records r using (rid) order by all",
}


def populate(world: World) -> World:
    """Three finished runs of which one has odd values, and a second project, all of an hour ago.

    What changes in the second of a pass may be newer than its cursor.
    """
    clock = world.now
    world.now = lambda: clock() - timedelta(hours=1)
    for run_id, rows in (("aaa", 10), ("bbb", 6)):
        run = world.add_run(
            "team",
            "p",
            run_id=run_id,
            state="running",
            name=f"name of {run_id}",
            config={"lr": 0.1, "model": {"depth": 3, "name": "net"}, "layers": [1, 2]},
            tags=["x", "y"],
            notes="hello",
            group="g",
            job_type="train",
            sweep="s1",
            description="what it is",
            host="box",
            commit="abc",
        )
        for step in range(rows):
            run.log({"loss": 1.0 / (step + 1), "acc": step / 10, "word": f"w{step}"}, step=step * 2)
        for tick in range(3):
            run.log_system({"system.cpu": 10.0 + tick})
        run.finish()
    odd = world.add_run("team", "p", run_id="odd", state="running", config={"big": 2**63 + 1})
    odd.log({"x": float("nan"), "big": 2**60 + 1, "flag": True, "nested": {"a": {"b": 1}}})
    odd.log({"x": float("inf"), "big": 3, "list": [1, "two"], "none": None})
    odd.finish()
    world.add_run("team", "q", run_id="ccc", state="finished")
    world.now = clock
    return world


class Bench:
    """Syncs, damages and verifies in this process."""

    def __init__(self, home, server, cli, monkeypatch, made=None) -> None:
        self.made = made
        self.home = home
        self.server = server
        self.world: World = server.world
        self.cli = cli
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", server.key)
        monkeypatch.setenv("NO_COLOR", "1")
        home.data.mkdir(parents=True)

    def configure(self, *, tail=10_000_000, sync=""):
        self.home.config.write_text(f'projects = ["team/p"]\n[sync]\n{sync}\n[store]\ntail_values = {tail}\n')

    def sync(self, *paths, **config):
        if config or not self.home.config.exists():
            self.configure(**config)
        text = self.home.config.read_text()
        if self.made is not None and not paths:
            # The world is the same for all, so is its mirror.
            if text not in self.made:
                self.made[text] = self.mirrored()
            for file in (self.home.state, self.home.published):
                shutil.copy(self.made[text][0] / file.name, file)
            shutil.copytree(self.made[text][0] / "history", self.home.history)
            if any(self.home.history.rglob("*.parquet")):
                # The views name the segments by their paths, which are others here.
                store = Store.open(self.home)
                store.publish()
                store.close()
            return
        done = self.cli("sync", *paths)
        assert done.exit_code == 0, done.stderr

    def damage(self, *statements):
        """Change the state file, which nothing holds."""
        with duckdb.connect(str(self.home.state)) as connection:
            for statement in statements:
                connection.execute(statement.replace("{run}", RUN))

    def tables(self, query):
        """Rows of the published file."""
        return reading.rows(self.home.published, query)

    def verify(self, *arguments):
        """Exit code and the lines of differences."""
        done = self.cli("verify", *arguments)
        return done.exit_code, done.stdout.splitlines()

    def found(self, *arguments):
        """Exit code and the findings of team/p as JSON, by level."""
        done = self.cli("verify", "--json", *arguments)
        answer = json.loads(done.stdout)
        return done.exit_code, answer["projects"][0]

    def fields(self, *arguments):
        """(run, field) of each difference."""
        code, project = self.found(*arguments)
        found = [(one["run_id"], one["field"]) for one in project["differences"]]
        assert (code == 1) == bool(found), project
        return found

    def content(self, home=None):
        """Everything that readers see."""
        with duckdb.connect(str(home or self.home.published), read_only=True) as connection:
            found = {name: connection.execute(query).fetchall() for name, query in CONTENT.items()}
            # The order of the columns depends on what was common first.
            wide = connection.execute('describe "team/p"').fetchall()
            names = ", ".join(f'"{name}"' for name, *_ in sorted(wide) if name != "synced_at")
            found["wide"] = connection.execute(f'select {names} from "team/p" order by run_id').fetchall()
            found["wide columns"] = [column[:2] for column in sorted(wide)]
            return found

    def fresh(self):
        """The content of a mirror that is made now, by the same config."""
        if self.made is not None:
            return self.made[self.home.config.read_text()][1]
        folder, content = self.mirrored()
        shutil.rmtree(folder)
        return content

    def mirrored(self):
        """A new mirror by the same config: its folder, and its content."""
        folder = Path(tempfile.mkdtemp(prefix="m"))
        kept = os.environ["MIRROR_HOME"]
        os.environ["MIRROR_HOME"] = str(folder)
        try:
            shutil.copy(self.home.config, folder / "config.toml")
            assert main(["-q", "sync"]) == 0
            return folder, self.content(folder / "mirror.duckdb")
        finally:
            os.environ["MIRROR_HOME"] = kept

    def repaired(self, *arguments):
        """Repair, and hold the mirror against a fresh one; what was said."""
        done = self.cli("verify", "--repair", *(arguments or ["--deep"]))
        assert done.exit_code == 0, done.stdout + done.stderr
        if "--json" not in arguments:
            assert (done.stdout, done.stderr.count("repaired ") >= 1) == ("", True), done.stderr
            assert ", 0 after it" in done.stderr
        ours, theirs = self.content(), self.fresh()
        for name, rows in theirs.items():
            assert ours[name] == rows, name
        return done.stdout or done.stderr
