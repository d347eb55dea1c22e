"""Runs that are exported as offline run folders are what they were, once the official client has uploaded them."""

from __future__ import annotations

import json
import math

import pytest

from mirror.move.file_names import file_name
from tests.local.kit import ingest
from tests.move.world import LONG_ID
from tests.reading import rows as read

pytestmark = pytest.mark.xdist_group("move")

RUN = "entity, project, run_path, synced_at"
SAME = {
    "run_tags": "run_id <> 'swept'",
    "config_values": "true",
    "summary_values": "true",
    "history": "true",
    "history_keys": "true",
    "system_metrics": "true",
    "console": "true",
    "metric_definitions": "true",
    "media": "true",
    "histograms": "true",
    "run_metadata": "key <> 'startedAt'",
    "runs": "state = 'finished' AND run_id <> 'swept'",
    "files": "true",
}
"""Each relation, with the rows of it that a server keeps as they were."""

NEW = {
    "runs": "username, created_at, heartbeat_at, updated_at, duration_s, url, tags, config, summary",
    "console": "logged_at",
    "files": "updated_at, size, md5, digest, local_path, mimetype",
    "media": "local_path",
}
"""Columns that each server sets itself; tags and documents have relations of their own."""


def comparable(cell):
    """A cell so that equal ones are equal: NaN is, and so are objects whose members the client writes in any order."""
    if isinstance(cell, float):
        return "nan" if math.isnan(cell) else round(cell, 5)
    return json.dumps(json.loads(cell), sort_keys=True) if isinstance(cell, str) and cell.startswith("{") else cell


def rows(rig, relation, where):
    left_out = ", ".join(["entity", "project", "run_path", *NEW.get(relation, "").split(", ")]).rstrip(", ")
    left_out += ", synced_at, deleted_at" if relation == "runs" else ""
    alive = "(select run_id from runs where deleted_at is null)"
    if relation in ("config_values", "summary_values", "run_metadata"):
        # The client writes 1.0 as 1.
        left_out += ") replace (case kind when 'number' then regexp_replace(value, '\\.0$', '') else value end as value"
    return table(
        rig.home, f"select * exclude ({left_out}) from {relation} where run_id in {alive} and {where} order by all"
    )


def table(home, query):
    return [tuple(map(comparable, row)) for row in read(home.published, query)]


@pytest.mark.parametrize("relation", SAME)
def test_a_relation_is_the_same_on_the_other_server(moved, relation):
    before, after = (rows(rig, relation, SAME[relation]) for rig in (moved.before, moved.after))
    assert before
    if relation == "files":
        # The metadata file of runs that had none keeps their time; the client writes these documents for each run.
        own = {"config.yaml", "wandb-summary.json", "output.log", "wandb-metadata.json"}
        before, after = ([row for row in side if row[1] not in own] for side in (before, after))
    assert after == before


def test_the_content_of_files_is_the_same(moved):
    before, after = (rig.files("full") for rig in (moved.before, moved.after))
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"config.yaml", "wandb-summary.json", "output.log"}


def test_states_become_what_the_client_can_send(moved):
    states = (
        "select run_id, state from runs where run_id in ('failed','killed','crashed','preempted','running') order by 1"
    )
    assert moved.after.sql(states) == [
        ("crashed", "running"),
        ("failed", "failed"),
        ("killed", "failed"),
        ("preempted", "preempting"),
        ("running", "running"),
    ]


def test_the_sweep_becomes_a_tag_and_the_start_stays_in_the_metadata(moved):
    assert moved.after.sql("select sweep, tags from runs where run_id = 'swept'") == [(None, "sweep:sw1")]
    started = "select value from run_metadata where run_id = 'swept' and key = 'startedAt'"
    assert moved.after.sql(started) == [("2026-03-01T12:00:00Z",)]
    # The run was pulled before it was deleted on the server; such a run is exported by name only.
    assert moved.before.sql("select count(*) from runs where deleted_at is not null") == [(1,)]
    assert moved.after.sql("select count(*) from runs where run_id = 'gone'") == [(0,)]


def test_the_plan_says_what_the_upload_will_not_carry(moved):
    assert moved.exit_code == 0
    sentences = [
        "exporting 8 runs: 18 history rows (94 values), 7 console lines, 4 files (0.0 MB)",
        "  new on the server: author, times of creation and last heartbeat, times and labels of console lines; startedAt in wandb-metadata.json, _timestamp and _runtime keep the old times",
        "  not exported: artifacts, reports, sweeps themselves",
        "  3 runs that did not end (1 running, 1 crashed, 1 preempted): shown as running, until the server marks them as crashed or preempted, some minutes after the upload",
        "  1 run in state killed: becomes failed",
        "  1 run of 1 sweep: the sweep becomes a tag, as in sweep:sw1, since servers refuse runs of sweeps that they do not have; --keep-sweeps keeps it",
        "warning: left out: 1 run that the server deleted; name a run to export it",
        f"wrote 8 run folders to {moved.folder}; upload them with:",
        f"  wandb sync --project PROJECT --entity ENTITY {moved.folder}",
    ]
    assert moved.printed.splitlines() == sentences


def test_the_folders_are_named_as_those_of_the_client(moved):
    names = sorted(path.name for path in moved.folder.iterdir())
    assert names == sorted(
        f"offline-run-20260301_120000-{file_name(run_id)}"
        for run_id in ("full", "failed", "killed", "crashed", "preempted", "running", "swept", LONG_ID)
    )
    assert file_name(LONG_ID).startswith("an-id_with_signs-xxx")
    assert len(file_name(LONG_ID)) < 130


def test_the_folders_are_mirrored_without_a_server(moved, home):
    """What `mirror ingest` reads from the folders is what was exported, with the times of the console."""
    results = ingest(home, moved.folder, console=True, system_metrics=True, metadata=True)
    assert {result.trouble() for result in results} == {None}
    for relation in ("config_values", "summary_values", "history", "history_keys", "system_metrics"):
        alive = "run_id in (select run_id from runs where deleted_at is null)"
        query = f"select * from {relation} where {alive} order by all"
        assert table(home, query) == table(moved.before.home, query), relation
    times = "select line, logged_at from console where text in ('first', 'a warning', 'again') order by 1"
    assert table(home, times) == table(moved.before.home, times)
