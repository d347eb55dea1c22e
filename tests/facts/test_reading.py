"""What is read: the three ways answer the same, and what is right. Each question is a function in reading.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mirror.sandbox import instants
from mirror.sandbox.run import TELEMETRY
from tests.facts.conftest import PROJECTS, SYNC, Answers, asked, of_old_server, reported
from tests.facts.world import OLD, WAYS, on_old_server, readable
from tests.serve.conftest import Served, served

pytestmark = pytest.mark.xdist_group("facts read")

CONFIG = {"epochs": 10, "model": {"depth": 0}}
RAW = {"_wandb": TELEMETRY, **CONFIG}
SUMMARY = {"acc": 100, "loss": 0, "a": {"b": {"c": 0.9}}, "_step": 3}
RUN0 = ["team", "p", "run0"]
GRID0 = ["team", "swept", "grid0"]
NO_RUNS = [[0, [], "IndexError", [], False], [[0, 0], [0, 0]]]
SECTION = {
    "runSets": [
        {
            "filters": {
                "op": "OR",
                "filters": [
                    {
                        "op": "AND",
                        "filters": [{"key": {"section": "run", "name": "name"}, "op": "IN", "value": ["run1", "run2"]}],
                    }
                ],
            },
            "sort": {"key": {"section": "run", "name": "createdAt"}, "ascending": True},
            "selections": {"root": 0, "tree": ["run1"]},
        }
    ]
}
REPORTS = [
    [
        *("Vmlldzo1OTc5MjI=", "two", "Old", "", "2026-03-01T13:00:00Z", "2026-03-01T13:00:00Z"),
        *({"panelGroups": [SECTION]}, "grace"),
    ],
    [
        *("Vmlldzo1OTc5MjE=", "one", "Which: rate?", "d", "2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
        *({"blocks": [{"type": "paragraph", "children": [{"text": "first"}]}]}, "ada"),
    ],
]
NO_SWEEPS = [0, [], False, "IndexError"]
FILES = ["a.json", "media/ü %.png", "notes.txt", "wandb-metadata.json"]

RUNTIME = 1.77e9 - 1772366400  # of the run's creation, at noon on 2026-03-01
HISTORY = [
    *(
        {
            "_step": step,
            "acc": step / 10,
            "loss": 1.5 - step / 4,
            "_timestamp": 1.77e9 + step,
            "_runtime": RUNTIME + step,
        }
        for step in range(3)
    ),
    {"_step": 3, "late": 0.25, "_timestamp": 1.77e9 + 9, "_runtime": RUNTIME + 9},
]
SCANNED = [
    {"_step": step, "acc": acc, "loss": loss, "_timestamp": 1.77e9, "_runtime": RUNTIME}
    for step, (acc, loss) in enumerate(((0.5, 1), (0.75, 0.5), (0.9, 0.1)))
]
BOUNDED = [[0, 1, 2], [0], [1, 2], [1], [], [], []]


def cut(rows: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    return [{key: row[key] for key in ("_step", *keys)} for row in rows if row.keys() >= set(keys)]


RIGHT: dict[str, Any] = {
    # Paths
    "every_form_of_a_path": [RUN0] * 8,
    "paths_with_defaults": [RUN0, RUN0, ["lab", "p", "other"]],
    "the_entity_of_the_environment": [["lab", "p"], ["other"], True],
    "paths_without_a_run": dict.fromkeys(
        ("", "    ", ":", "/", "//", "/ /", "/ / /", "team/p:", "team/p/"), "CommError"
    ),
    "a_run_id_without_a_project": "CommError",
    "what_a_path_leads_to": ["Project", "Project", "Run", "Run", "Sweep"],
    "paths_that_lead_nowhere": dict.fromkeys(
        ("team/p/things/run0", "team/p/runs/run0/x", "team/p/runs/none", "team/swept/sweeps/none"), True
    ),
    "a_run_is_opened_once": [True, True],
    "a_run_that_is_not_there": ["CommError", "CommError"],
    "what_is_said_of_a_run_that_is_not_there": True,
    "the_base_url_loses_its_slashes": True,
    # Runs
    "a_run": {
        "id": "run0",
        "name": "name 0",
        "display_name": "name 0",
        "state": "finished",
        "tags": ["baseline"],
        "notes": "as noted",
        "description": "as described",
        "group": "A",
        "job_type": "test",
        "commit": "c0ffee",
        "created_at": "2026-03-01T12:00:00Z",
        "entity": "team",
        "project": "p",
        "path": RUN0,
        "username": "team",
        "sweep_name": None,
        "storage_id": "UnVuOnYxOnJ1bjA6cDp0ZWFt",
        "history_line_count": 4,
        "lastHistoryStep": 3,
        "read_only": False,
        "project_id": 1000,
    },
    "fields_by_the_names_of_the_server": {
        "displayName": "name 0",
        "jobType": "test",
        "createdAt": "2026-03-01T12:00:00Z",
        "historyLineCount": 4,
        "readOnly": False,
        "sweepName": None,
        "summaryMetrics": SUMMARY,
        "systemMetrics": {"system.cpu": 20},
        "rawconfig": RAW,
    },
    "a_field_that_no_run_has": "AttributeError",
    "who_started_a_run": ["Grace", "grace"] * 2,
    "config_and_summary": [
        CONFIG,
        RAW,
        SUMMARY,
        json.dumps({key: {"value": value, "desc": None} for key, value in RAW.items()}),
    ],
    "a_nested_summary": [0.9, 0.9, None, 7, True, False, ["_step", "a", "acc", "loss"], 100, 100],
    "a_summary_key_that_is_not_there": ["KeyError", "KeyError"],
    "a_summary_shows_itself": "{'acc': 100, 'a': {'b': 1}}",
    "config_of_plain_values": [{"test": "test"}] * 2,
    "control_characters": [{"test": "test\ttest"}] * 3,
    "a_run_without_anything": [{}, {}, {}, [], None, None, None, None, [], [], -1, 0],
    "system_metrics": {"system.cpu": 20},
    "a_lazy_run_tells_all": ["Grace", CONFIG, SUMMARY, {"system.cpu": 20}, RAW],
    "loading_again": [*[["run0", "name 0", "finished"]] * 4, CONFIG],
    "a_run_in_a_notebook": [False, True, True],
    "the_size_of_the_frame_in_a_notebook": [True, True, True],
    "the_page_of_a_run": ["/team/p/runs/run0", "/team/My%20Project/runs/spaced"],
    "what_a_run_says_of_itself": ["<Run team/p/run0 (finished)>", "<Run team/My%20Project/spaced (finished)>"],
    "metadata": {
        "os": "Linux",
        "program": "train.py",
        "host": "node1",
        "git": {"commit": "c0ffee", "remote": "https://github.com/team/p.git"},
    },
    "waiting_for_a_run_that_ended": [None, "finished"],
    # History
    "history": HISTORY,
    "history_of_keys": [cut(HISTORY, "acc", "loss"), [{"_step": 3, "late": 0.25}]],
    "history_of_keys_that_no_row_has": [[], [], HISTORY],
    "history_on_another_axis": [{"loss": row["loss"], "acc": row["acc"]} for row in HISTORY[:3]],
    "history_as_a_frame": ["DataFrame", ["_step", "acc", "loss"], [3, 3], [1.5, 1.25, 1.0]],
    "history_of_the_machine": [{"system.cpu": cpu} for cpu in (0, 10, 20)],
    "whole_history_of_the_machine": [
        {"system.cpu": cpu, "_timestamp": 1.77e9 + cpu, "_runtime": RUNTIME + cpu, "_wandb": True}
        for cpu in (0, 10, 20)
    ],
    "history_with_keys_that_are_no_list": [[], [], []],
    "samples": [5, 10],
    "scan": SCANNED,
    "scan_of_exported_history": SCANNED,
    "scan_of_partly_exported_history": SCANNED,
    "scan_row_by_row": [[0.5, 0.75, 0.9, "StopIteration"]] * 2,
    "scan_of_keys": [cut(SCANNED, "loss")] * 3,
    "scan_of_keys_logged_apart": [[{"_step": 3, "late": 0.25}], [], []],
    "scan_in_small_pages": [[{"_step": step, "acc": step} for step in range(10)], cut(SCANNED, "acc")],
    "scan_again": [[[0.5, 0.75], [0.5, 0.75, 0.9], [0.5, 0.75, 0.9]]] * 2,
    "scan_within_bounds": {"scanned": BOUNDED, "exported": BOUNDED},
    "the_last_step_of_a_scan": [[2, 0, 1000, None], [2, 0, 1000, None], [0, 0, 1000, None], [2, 0, 1000, ["acc"]]],
    "scan_across_gaps": [[2, 3, 45]] * 3,
    "scan_with_keys_that_are_no_list": ["CommError"] * 3,
    "exports": [["team_p_exported_0.runhistory.parquet"], [True], False],
    "exports_that_are_not_complete": "IncompleteRunHistoryError",
    # Lists
    "a_list_of_runs": [
        *(4, True, "run0", "A", "test", SUMMARY, "run3", ["run0", "run1", "run2", "run3"]),
        *(4, False, ["run1", "run2"]),
    ],
    "what_is_loaded_of_a_list": [4, 2, ["run0", "run1", "run2", "run3"], 4],
    "behind_the_end_of_a_list": ["IndexError", "IndexError"],
    "a_list_run_by_run": [["run0", "run1", "run2", "run3"], "StopIteration"],
    "what_a_list_says_of_itself": "<Runs team/p>",
    "a_list_without_runs": NO_RUNS * 2,
    "runs_of_a_project_that_is_not_there": ["ValueError", "ValueError"],
    "runs_with_their_sweeps": [
        *([f"s{number}", "grid0", "grid0"] for number in range(3)),
        *([f"n{number}", "nameless", "nameless"] for number in range(2)),
    ],
    "histories": [
        {"_step": step, "acc": (step + number) / 10, "run_id": f"run{number}"}
        for number in range(2)
        for step in range(3)
    ],
    "histories_without_keys": [
        *(
            [row["_step"], row["acc"], "scanned", ["_runtime", "_step", "_timestamp", "acc", "loss", "run_id"]]
            for row in SCANNED
        ),
        *([step, step, "long", ["_runtime", "_step", "_timestamp", "acc", "run_id"]] for step in range(3)),
    ],
    "histories_as_frames": [[[4, 4], ["_step", "acc", "loss", "run_id"], ["run0", "run1"]]] * 2,
    "histories_of_the_machine": [[cpu, "run0"] for cpu in (0, 10, 20)],
    "histories_in_a_form_that_there_is_not": "CommError",
    # Projects
    "projects": [["My Project", "hollow", "odd", "p", "swept"], True],
    "projects_of_nobody": [],
    "a_project": ["p", "team", ["team", "p"], "/team/p/workspace", "<Project team/p>"],
    "what_the_server_tells_of_a_project": ["UHJvamVjdDp2MTpwOnRlYW0=", "2026-03-01T12:00:00Z", False],
    "the_owner_of_a_project": ["Ada", "ada"],
    "a_project_that_is_not_there": "ValueError",
    "a_project_in_a_notebook": [False, True],
    # Reports
    "reports_of_a_project": REPORTS,
    "a_report_by_its_name": ["Which-rate--Vmlldzo1OTc5MjE", True, "Which: rate?"],
    "runs_of_a_section_of_an_old_report": [["run1"], ["run1", "run2"]],
    "a_project_without_reports": [[], "ValueError"],
    # Sweeps
    "sweeps_of_a_project": [3, ["grid0", "nameless", "waiting"], "Sweep"],
    "sweeps_page_by_page": [3, ["grid0", "nameless", "waiting"], "IndexError"],
    "a_project_without_sweeps": [NO_SWEEPS, NO_SWEEPS],
    "what_sweeps_say_of_themselves": "<Sweeps team/swept>",
    "sweeps_that_fit_a_filter": [["grid0"], ["waiting"]],
    "a_sweep": {
        "grid0": {
            "id": "grid0",
            "name": "a grid",
            "entity": "team",
            "project": "swept",
            "state": "FINISHED",
            "path": GRID0,
            "expected_run_count": 3,
            "order": "+summary_metrics.loss",
            "config": {
                "name": "a grid",
                "method": "grid",
                "metric": {"name": "loss", "goal": "minimize"},
                "parameters": {"lr": {"values": [1, 2, 3]}},
            },
        },
        "nameless": {
            "id": "nameless",
            "name": "nameless",
            "entity": "team",
            "project": "swept",
            "state": "RUNNING",
            "path": ["team", "swept", "nameless"],
            "expected_run_count": None,
            "order": None,
            "config": {"method": "random", "parameters": {"lr": {"min": 0, "max": 1}}},
        },
        "waiting": {
            "id": "waiting",
            "name": "as renamed",
            "entity": "team",
            "project": "swept",
            "state": "PENDING",
            "path": ["team", "swept", "waiting"],
            "expected_run_count": None,
            "order": "-summary_metrics.acc",
            "config": {
                "name": "as configured",
                "method": "bayes",
                "metric": {"name": "acc", "goal": "maximize"},
                "parameters": {"lr": {"values": [1]}},
            },
        },
    },
    "what_a_sweep_says_of_itself": [
        *("<Sweep team/swept/grid0 (FINISHED)>", "<Sweep team/swept/nameless (RUNNING)>"),
        "<Sweep team/swept/waiting (PENDING)>",
    ],
    "forms_of_a_path_of_a_sweep": [GRID0] * 5,
    "fields_of_a_sweep_by_the_names_of_the_server": ["grid", 3, 1.0, None, None, "2026-03-01T12:00:00Z"],
    "a_sweep_that_is_not_there": ["CommError", "CommError"],
    "a_sweep_is_opened_once": True,
    "a_sweep_got_by_its_parts": ["grid0", "waiting", None],
    "the_runs_of_a_sweep": {"grid0": [["s0", "s1", "s2"], 3], "nameless": [["n0", "n1"], 2], "waiting": [[], 0]},
    "the_best_run_of_a_sweep": ["s2", "n0", None, "s0"],
    "the_sweep_of_a_run": ["grid0", "a grid", "team", "swept", "FINISHED", "grid0", 3.0, None],
    "a_sweep_in_a_notebook": [False, True],
    # Files
    "files": [
        4,
        [
            ["a.json", 2, "application/json", "mZFLkyvTelC5g8XnyQrpOw==", "RmlsZTp2MTp0ZWFtL3AvcnVuMDphLmpzb24="],
            [FILES[1], 8, "image/png", "MAQteNkKGPJYvtR/4MAzxA==", "RmlsZTp2MTp0ZWFtL3AvcnVuMDptZWRpYS/DvCAlLnBuZw=="],
            [FILES[2], 2000, "text/plain", "dTwNjxanZEwDpHOppbEHkw==", "RmlsZTp2MTp0ZWFtL3AvcnVuMDpub3Rlcy50eHQ="],
            [
                *(FILES[3], 117, "application/json", "cWEFa9x+n2DbWYYO3urpFA=="),
                "RmlsZTp2MTp0ZWFtL3AvcnVuMDp3YW5kYi1tZXRhZGF0YS5qc29u",
            ],
        ],
    ],
    "files_in_small_pages": [4, FILES, FILES[1]],
    "files_by_name_and_pattern": [["a.json"], [], FILES, ["a.json", FILES[3]], [FILES[1]], FILES[:2]],
    "names_and_a_pattern": "CommError",
    "a_file": ["a.json", 2, "application/json", "mZFLkyvTelC5g8XnyQrpOw=="],
    "a_file_that_is_not_there": True,
    "the_direct_address_of_a_file": "{}",
    "a_download": ["as drawn", FILES[1], "CommError", "as drawn", "as drawn"],
    # Console
    "console": [
        [0, "2026-01-02 03:04:05.678901+00:00", "", "", "first"],
        [1, "2026-01-02 03:04:06.120000+00:00", "error", "rank-1", "second"],
        [2, None, "", "", "without a time"],
        [3, "2026-01-02 03:04:07+00:00", "", "", "fourth"],
        [4, "2026-01-02 03:04:08.678901+00:00", "", "", "fifth"],
    ],
    "console_in_small_pages": [0, 1, 2, 3, 4],
    "the_end_of_a_console": [[3, 4], [0, 1, 2, 3, 4]],
    "a_run_without_console": [],
    # A server of an older version
    "sweeps_where_they_cannot_be_filtered": [["sw1"], True],
    "a_server_that_takes_no_runs_for_sweeps": ["a grid", True],
    "a_server_that_changes_no_states": ["CommError", "finished"],
}

TWICE = [SCANNED[place] for place in (0, 0, 1, 1, 2)]

DIFFERENT: dict[str, dict[str, Any]] = {
    # The client reads steps from the exported file that it then reads once more as live ones, in a page with both.
    "scan_of_partly_exported_history": {"server": TWICE},
    "scan_of_keys": {"server": [cut(SCANNED, "loss"), cut(SCANNED, "loss"), cut(TWICE, "loss")]},
    # The endpoint sends history as JSON alone, and says that all of it is live (docs/sdk.md).
    "exports": {"endpoint": [[], [], True]},
    # The mirror's list is whole from the start (docs/python.md).
    "what_is_loaded_of_a_list": {"mirror": [4, 4, ["run0", "run1", "run2", "run3"], 4]},
    # The client warns that it returns the newest run of a sweep without a metric, and returns the oldest.
    "the_best_run_of_a_sweep": {"mirror": ["s2", "n1", None, "s0"]},
}

TIMES = ("when_a_run_was_last_heard_of", "when_a_file_was_uploaded")


@pytest.fixture(scope="module")
def site() -> Iterator[Served]:
    with served(readable(), PROJECTS, sync=SYNC) as site:
        yield site


@pytest.fixture(scope="module")
def answers(site: Served) -> Answers:
    setting = {"features": OLD, "key": site.server.key}
    with served(on_old_server(), PROJECTS, setting) as old:
        return asked(site, "reading.py", **of_old_server(old))


@pytest.mark.parametrize("name", RIGHT)
def test_three_ways_read_the_same(answers: Answers, name: str) -> None:
    assert reported(answers, name) == {**dict.fromkeys(WAYS, RIGHT[name]), **DIFFERENT.get(name, {})}


def test_three_ways_read_the_same_times(site: Served, answers: Answers) -> None:
    run = site.world.run("team", "p", "run0")
    heard, uploaded = instants.text(run.heartbeat_at), instants.text(run.files["a.json"].updated_at)
    assert reported(answers, TIMES[0]) == {way: [heard, heard] for way in WAYS}
    assert reported(answers, TIMES[1]) == dict.fromkeys(WAYS, uploaded)


def test_every_question_has_its_right_answer(answers: Answers) -> None:
    assert sorted([*RIGHT, *TIMES]) == sorted(answers["server"])
