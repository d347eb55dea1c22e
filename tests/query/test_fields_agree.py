"""What `null` and `$exists` mean for each field of a run is the same for the server and the mirror."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mirror.sandbox import World
from mirror.sandbox.filters import compile_filter
from mirror.snapshot.connection import connected
from mirror.snapshot.run_query import RunQuery
from tests.sync.rig import Rig
from tests.sync.rig import rig as make_rig

FIELDS = (
    *("name", "display_name", "state", "tags", "group", "job_type", "sweep", "username", "notes", "description"),
    *("host", "commit", "created_at", "heartbeat_at", "updated_at", "duration"),
)
CONDITIONS: tuple[Any, ...] = (
    *(None, {"$eq": None}, {"$ne": None}, {"$exists": True}, {"$exists": False}, {"$in": [None]}, {"$nin": [None]}),
    *({"$gte": None}, {"$not": {"$exists": False}}, {"$not": {"$in": [None]}}),
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A run with every field, and one with as few as there can be."""
    with make_rig(tmp_path_factory.mktemp("fields") / "home") as made:
        world: World = made.world
        full = world.add_run("team", "p", run_id="full", tags=["x"], group="g", job_type="train", sweep="s1")
        full.labels.notes, full.labels.description, full.labels.host, full.labels.commit = "n", "d", "h", "c0ffee"
        full.log({"loss": 1.0}, step=0)
        full.finish()
        world.add_run("team", "p", run_id="bare")
        made.sync("team/p")
        yield made


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_is_missing_here_where_it_is_on_the_server(rig: Rig, field: str) -> None:
    runs = rig.world.projects["team", "p"].runs
    with connected(rig.home) as connection:
        for condition in CONDITIONS:
            text = json.dumps({field: condition})
            check = compile_filter(text)
            assert check is not None
            served = sorted(run_id for run_id, run in runs.items() if check(run))
            found = RunQuery.build(connection, text, order="name", projects=["team/p"]).rows(["run_id"]).texts()
            assert sorted(run_id or "" for (run_id,) in found) == served, text


def test_every_run_has_tags_and_a_run_without_a_group_lacks_it(rig: Rig) -> None:
    """What the server means is what the page says, not only the same on both sides."""
    with connected(rig.home) as connection:

        def found(conditions: Any) -> list[str]:
            query = RunQuery.build(connection, conditions, order="name", projects=["team/p"])
            return [str(run_id) for (run_id,) in query.rows(["run_id"]).texts()]

        for condition in (None, {"$exists": False}, {"$in": [None]}):
            assert (found({"tags": condition}), found({"group": condition})) == ([], ["bare"])
        for condition in ({"$exists": True}, {"$nin": [None]}, {"$ne": None}):
            assert (found({"tags": condition}), found({"group": condition})) == (["bare", "full"], ["full"])
