"""A running daemon with its page, one for all tests of a module."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import httpx
import pytest

from mirror.control import Control
from mirror.sandbox import Sandbox, World
from tests.daemon.conftest import Bench, bench

__all__ = ["bench"]


SETTINGS = """projects = ["team/vision", "team/language"]
[sync]
interval = "1h"
live_interval = "1h"
system_metrics = true
metadata = true
console = true
files = true
[publish]
min_interval = "200ms"
[http]
listen = "127.0.0.1:0"
"""


class Site(Bench):
    """A home whose daemon serves its page on a free port, and a client that carries the token."""

    def served(self):
        """Where the page is, as the daemon says."""
        found = Control(self.home / "mirror.sock").status()["http"]
        assert found["error"] is None, found
        return found["url"]

    @property
    def token(self):
        return (self.home / "web.token").read_text().strip()

    def client(self, **headers):
        return httpx.Client(base_url=self.served(), headers=headers, timeout=30)

    def get(self, path, **parameters):
        """JSON, by the token."""
        with self.client(Authorization=f"Bearer {self.token}") as client:
            answer = client.get(path, params=parameters)
            assert answer.status_code == 200, answer.text
            return answer.json()

    def sql_rows(self, text, **more):
        with self.client(Authorization=f"Bearer {self.token}") as client:
            return client.post("/api/sql", json={"sql": text, **more})


def log_curve(run, steps, start=0):
    for step in range(start, start + steps):
        run.log({"loss": 1.0 / (step + 1), "acc": step / 100}, step=step)


@pytest.fixture(scope="module")
def site():
    root = Path(tempfile.mkdtemp(prefix="m"))
    try:
        with Sandbox(World()) as server:
            site = Site(root, server)
            for index in range(12):
                config = {"lr": 10.0**-index, "opt": {"name": "adam" if index % 2 else "sgd"}}
                run = site.world.add_run("team", "vision", run_id=f"run{index:02}", name=f"run {index}", config=config)
                log_curve(run, 20)
                run.set_summary({"acc": index / 10})
                if index == 3:
                    run.write_console(0, ["epoch 1", "epoch 2"])
                    run.add_file("wandb-metadata.json", '{"host": "node1"}')
                    run.add_file("model.pt", "abc")
                    for cpu in (40.0, 41.0, 42.0):
                        run.log_system({"system.cpu": cpu})
                run.finish()
            live = site.world.add_run("team", "vision", run_id="live", name="still training", config={"lr": 0.5})
            log_curve(live, 5)
            site.live = live
            other = site.world.add_run("team", "language", run_id="other", name="other")
            other.finish()
            # A daemon that lives as long as a module, beside other tests, and is not to take the machine.
            site.configure(text=SETTINGS)
            with site.daemon():
                site.until(lambda: site.sql("select count(*), sum(history_rows) from runs") == [(14, 245)], 60)
                # Console, metadata and files come last in the first pass.
                passed = "select count(*) from projects where last_success_at is not null"
                site.until(lambda: site.sql(passed) == [(2,)], 60)
                yield site
    finally:
        shutil.rmtree(root)
