"""A server, and files of runs that it has, or had."""

from __future__ import annotations

import json

import pytest

from mirror.sandbox import Sandbox, World
from tests.local.kit import run_file


class Pair:
    """A run whose file and whose server are given the same lines, one after the other."""

    def __init__(self, root, world, run_id="r1", *, entity="team", project="p", start=1_700_000_000, **fields):
        self.file = run_file(root, run_id, entity=entity, project=project, start=start, **fields)
        self.run = world.add_run(entity, project, run_id=run_id, config={})

    def log(self, step, **values):
        """One line on both sides; objects are nested values."""
        self.file.log(step, **dict(_flat(values)))
        line = {**values, "_step": step, "_timestamp": self.file.start + step}
        self.run.history.append_text(json.dumps(line))
        return self.summary(**line)

    def lines(self, first, end):
        for step in range(first, end):
            self.log(step, loss=1 / (step + 1), acc=step)
        return self

    def summary(self, **values):
        self.run.set_summary({**self.run.summary, **values})
        return self

    def ended(self, code=0, state=None):
        """Both sides tell how it ended; the server with another state where one is given."""
        self.file.summary(**dict(_flat(self.run.summary))).exit(code)
        self.run.finish("failed" if code else "finished", code)
        if state:
            self.run.set_state(state)
        return self

    def lose_behind(self, step):
        """The server loses the rows behind a step."""
        self.run.history.truncate(step)

    def lose(self, *steps):
        """The server loses these rows."""
        lines = zip(self.run.history.steps, self.run.history.lines, strict=True)
        self.run.history.rebuild([line for step, line in lines if step not in steps])

    def losses(self):
        """What the server has of one key."""
        return [(row["_step"], row.get("loss")) for row in self.run.rows()]


def _flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict) and "_type" not in value:
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", json.dumps(value)


def curve(*steps):
    return [(step, 1 / (step + 1)) for step in steps]


@pytest.fixture
def server(home, monkeypatch):
    with Sandbox(World()) as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", running.key)
        monkeypatch.setenv("NO_COLOR", "1")
        yield running


@pytest.fixture
def pair(server, tmp_path):
    """A finished run of ten rows, the same on both sides."""
    return Pair(tmp_path / "wandb", server.world).lines(0, 10).ended()


@pytest.fixture
def verify(cli, tmp_path):
    """`mirror verify --local` of all files: exit code, lines of stdout, lines of stderr without the cost."""

    def run(*arguments, folder=None):
        done = cli("verify", "--local", str(folder or tmp_path / "wandb"), *arguments)
        reported = [line.rpartition(" (")[0] if line.endswith(" s)") else line for line in done.stderr.splitlines()]
        return done.exit_code, done.stdout.splitlines(), reported

    return run
