"""A dry run and the pass after it agree: both decide by `mirror.sync.plan`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from mirror.remote.client import Server
from mirror.sandbox import Sandbox, sample
from mirror.sync.preview import preview
from mirror.sync.targets import expand, parse
from tests.sync.rig import Rig

WORLDS = {"small": (sample.small, "my-team"), "full": (sample.full, "acme")}


def foreseen(rig, path):
    """(runs, new runs, deleted runs, history rows) of each project, by a dry run."""

    async def ask():
        async with Server(rig.sandbox.url, rig.sandbox.key, retry=rig.retry) as server:
            targets = await expand(server, [parse(path)])
            return [await preview(server, rig.scope, rig.home, target) for target in targets]

    return {
        str(one.project): (one.new_runs + one.changed_runs, one.new_runs, one.deleted_runs, one.history_rows)
        for one in asyncio.run(ask())
    }


def brought(rig, path):
    """The same, by the pass."""
    return {
        project: (result.runs, result.new_runs, result.deleted, result.rows)
        for project, result in rig.sync(path).items()
        if not result.failed
    }


@pytest.mark.parametrize("name", WORLDS)
def test_a_dry_run_and_the_pass_after_it_agree_on_every_sample_project(tmp_path, name):
    build, entity = WORLDS[name]
    world = build()
    clock = world.now
    world.now = lambda: clock() - timedelta(hours=1)
    path = f"{entity}/*"
    with Sandbox(world) as server:
        rig = Rig(tmp_path, server)
        for change in (lambda: None, lambda: None, lambda: alter(world, entity)):
            change()
            reported = foreseen(rig, path)
            found = brought(rig, path)
            assert found
            assert {project: reported[project] for project in found} == found


def alter(world, entity):
    """Edit, log, delete and add runs in every project."""
    for project in [project.name for project in world.projects.values() if project.entity == entity]:
        runs = sorted(world.runs(entity, project), key=lambda run: run.run_id)
        world.delete_run(entity, project, runs[0].run_id)
        world.add_run(entity, project, run_id="fresh", state="running").log({"loss": 1.0})
        for run in runs[1:3]:
            run.log({"loss": 0.5})
