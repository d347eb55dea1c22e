"""What a script reads of runs, projects, sweeps and files; see world.py for what there is to read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from way import Ask, Way, main

ASKED: list[Ask] = []
RUN = "team/p/run0"


def fact(ask: Ask) -> Ask:
    ASKED.append(ask)
    return ask


# Paths


@fact
def every_form_of_a_path(way: Way) -> Any:
    forms = (
        "team/p/runs/run0",
        "team/p/run0",
        "/team/p/run0",
        "team/p:run0",
        "p/run0",
        "p:run0",
        "/p/runs/run0",
        "team/p/run0 ",
    )
    return [way.api().run(form).path for form in forms]


@fact
def paths_with_defaults(way: Way) -> Any:
    both = way.api(entity="team", project="p")
    return [both.run("run0").path, way.api(project="p").run("run0").path, way.api(entity="lab").run("p/other").path]


@fact
def the_entity_of_the_environment(way: Way) -> Any:
    os.environ["WANDB_ENTITY"] = "lab"
    try:
        api = way.api()
        return [
            api.project("p").path,
            [run.id for run in api.runs("p")],
            "/lab/p/workspace?jupyter=true" in api.from_path("p").to_html(),
        ]
    finally:
        del os.environ["WANDB_ENTITY"]


@fact
def paths_without_a_run(way: Way) -> Any:
    api = way.api(entity="team", project="p")
    bad = ("", "    ", ":", "/", "//", "/ /", "/ / /", "team/p:", "team/p/")
    return {path: way.caught(api.run, path) for path in bad}


@fact
def a_run_id_without_a_project(way: Way) -> Any:
    return way.caught(way.api(entity="team").run, "nowhere")


@fact
def what_a_path_leads_to(way: Way) -> Any:
    api = way.default
    paths = ("p", "team/p", RUN, "team/p/runs/run0", "team/swept/sweeps/grid0")
    return [type(api.from_path(path)).__name__ for path in paths]


@fact
def paths_that_lead_nowhere(way: Way) -> Any:
    api = way.default
    paths = ("team/p/things/run0", "team/p/runs/run0/x", "team/p/runs/none", "team/swept/sweeps/none")
    return {path: way.caught(api.from_path, path) is not None for path in paths}


@fact
def a_run_is_opened_once(way: Way) -> Any:
    api = way.api()
    return [api.from_path(RUN) is api.from_path(RUN), api.run(RUN) is api.from_path(RUN)]


@fact
def a_run_that_is_not_there(way: Way) -> Any:
    api = way.api()
    return [way.caught(api.run, path) for path in ("team/p/none", "team/none/run0")]


@fact
def what_is_said_of_a_run_that_is_not_there(way: Way) -> Any:
    return "none" in way.said(lambda: way.default.run("team/p/none"))


@fact
def the_base_url_loses_its_slashes(way: Way) -> Any:
    given = "http://127.0.0.1:9///"
    base = way.api(base_url=given).settings["base_url"] if way.name == "mirror" else None
    if base is None:
        api = way.module.Api({"base_url": os.environ["WANDB_BASE_URL"] + "///"})
        return api.settings["base_url"] == os.environ["WANDB_BASE_URL"]
    return base == "http://127.0.0.1:9"


# Runs


@fact
def a_run(way: Way) -> Any:
    run = way.default.run(RUN)
    names = (
        *("id", "name", "display_name", "state", "tags", "notes", "description", "group", "job_type", "commit"),
        *("created_at", "entity", "project", "path", "username", "sweep_name", "storage_id"),
        *("history_line_count", "lastHistoryStep", "read_only", "project_id"),
    )
    return {name: getattr(run, name) for name in names}


@fact
def fields_by_the_names_of_the_server(way: Way) -> Any:
    run = way.default.run(RUN)
    names = ("displayName", "jobType", "createdAt", "historyLineCount", "readOnly", "sweepName")
    documents = ("summaryMetrics", "systemMetrics", "rawconfig")
    return {name: getattr(run, name) for name in (*names, *documents)}


@fact
def when_a_run_was_last_heard_of(way: Way) -> Any:
    run = way.default.run(RUN)
    return [run.heartbeat_at, run.heartbeatAt]


@fact
def a_field_that_no_run_has(way: Way) -> Any:
    return way.caught(getattr, way.default.run(RUN), "no_such_field", kind="AttributeError")


@fact
def who_started_a_run(way: Way) -> Any:
    user = way.default.run(RUN).user
    listed = way.default.runs("team/p", {"name": "run0"})[0].user
    return [user.name, user.username, listed.name, listed.username]


@fact
def config_and_summary(way: Way) -> Any:
    run = way.default.run(RUN)
    return [run.config, run.rawconfig, run.summary_metrics, run.json_config]


@fact
def a_nested_summary(way: Way) -> Any:
    summary = way.default.run(RUN).summary
    found = [summary["a"]["b"]["c"], summary.get("a")["b"]["c"], summary.get("none"), summary.get("none", 7)]
    return [*found, "a" in summary, "none" in summary, sorted(summary.keys()), summary["acc"], summary[" acc "]]


@fact
def a_summary_key_that_is_not_there(way: Way) -> Any:
    summary = way.default.run(RUN).summary
    return [
        way.caught(summary.__getitem__, "none", kind="KeyError"),
        way.caught(summary.__delitem__, "none", kind="KeyError"),
    ]


@fact
def a_summary_shows_itself(way: Way) -> Any:
    return repr(way.default.run("team/p/run1").summary)


@fact
def config_of_plain_values(way: Way) -> Any:
    """Entries that are not wrapped as `{"value": ...}`."""
    run = way.default.run("team/odd/plain")
    return [run.config, run.summary_metrics]


@fact
def control_characters(way: Way) -> Any:
    run = way.default.run("team/odd/control")
    return [run.config, run.summary_metrics, run.system_metrics]


@fact
def a_run_without_anything(way: Way) -> Any:
    run = way.default.run("team/odd/empty")
    reported = [
        run.config,
        run.summary_metrics,
        run.system_metrics,
        run.tags,
        run.notes,
        run.group,
        run.sweep,
        run.metadata,
    ]
    return [*reported, run.history(pandas=False), list(run.scan_history()), run.lastHistoryStep, len(run.files())]


@fact
def system_metrics(way: Way) -> Any:
    return way.default.run(RUN).system_metrics


@fact
def a_lazy_run_tells_all(way: Way) -> Any:
    """Its config, summary and system metrics come when they are looked at."""
    listed = way.default.runs("team/p", {"name": "run0"})[0]
    name = listed.user.name
    return [name, listed.config, dict(listed.summary_metrics), listed.system_metrics, listed.rawconfig]


@fact
def loading_again(way: Way) -> Any:
    run = way.api().run(RUN)
    first, second, third = run.load(), run.load(), run.load(force=True)
    whole = run.load_full_data(force=True)
    return [
        [reported["name"], reported["displayName"], reported["state"]] for reported in (first, second, third, whole)
    ] + [run.config]


@fact
def a_run_in_a_notebook(way: Way) -> Any:
    run = way.default.run("p/run0")
    return [run.display(), "/team/p/runs/run0?jupyter=true" in run.to_html(), "iframe" in run.to_html(hidden=True)]


@fact
def the_size_of_the_frame_in_a_notebook(way: Way) -> Any:
    run = way.default.run("p/run0")
    return [
        "height:77px" in run.to_html(77),
        "display:none" in run.to_html(hidden=True),
        "<button" in run.to_html(hidden=True),
    ]


@fact
def the_page_of_a_run(way: Way) -> Any:
    pages = [way.default.run(path).url for path in (RUN, "team/My Project/spaced")]
    return [page.removeprefix(os.environ["FACTS_PAGES"]) for page in pages]


@fact
def what_a_run_says_of_itself(way: Way) -> Any:
    return [repr(way.default.run(path)) for path in (RUN, "team/My Project/spaced")]


@fact
def metadata(way: Way) -> Any:
    return way.default.run(RUN).metadata


@fact
def waiting_for_a_run_that_ended(way: Way) -> Any:
    run = way.default.run(RUN)
    return [run.wait_until_finished(), run.state]


# History


@fact
def history(way: Way) -> Any:
    return way.default.run(RUN).history(pandas=False)


@fact
def history_of_keys(way: Way) -> Any:
    run = way.default.run(RUN)
    return [run.history(keys=["acc", "loss"], pandas=False), run.history(keys=["late"], pandas=False)]


@fact
def history_of_keys_that_no_row_has(way: Way) -> Any:
    run = way.default.run(RUN)
    return [
        run.history(keys=["none"], pandas=False),
        run.history(keys=["acc", "none"], pandas=False),
        run.history(keys=[], pandas=False),
    ]


@fact
def history_on_another_axis(way: Way) -> Any:
    return way.default.run(RUN).history(keys=["acc"], x_axis="loss", pandas=False)


@fact
def history_as_a_frame(way: Way) -> Any:
    frame = way.default.run(RUN).history(keys=["acc", "loss"])
    return [type(frame).__name__, list(frame.columns), frame.shape, frame["loss"].tolist()]


@fact
def history_of_the_machine(way: Way) -> Any:
    rows = way.default.run(RUN).history(stream="system", pandas=False)
    return [{key: value for key, value in row.items() if key.startswith("system.")} for row in rows]


@fact
def whole_history_of_the_machine(way: Way) -> Any:
    return way.default.run(RUN).history(stream="system", pandas=False)


@fact
def history_with_keys_that_are_no_list(way: Way) -> Any:
    run = way.default.run(RUN)
    asked: tuple[dict[str, Any], ...] = ({"keys": "acc"}, {"keys": [["acc"]]}, {"keys": ["acc"], "stream": "system"})
    found = []
    for arguments in asked:
        caught = way.caught(run.history, pandas=False, **arguments)
        found.append(caught or run.history(pandas=False, **arguments))
    return found


@fact
def samples(way: Way) -> Any:
    rows = way.default.run("team/p/long").history(samples=5, pandas=False)
    return [len(rows), len(way.default.run("team/p/long").history(samples=1000, pandas=False))]


@fact
def scan(way: Way) -> Any:
    return list(way.default.run("team/p/scanned").scan_history())


@fact
def scan_of_exported_history(way: Way) -> Any:
    return list(way.default.run("team/p/exported").scan_history())


@fact
def scan_of_partly_exported_history(way: Way) -> Any:
    return list(way.default.run("team/p/partly").scan_history())


@fact
def scan_row_by_row(way: Way) -> Any:
    found = []
    for path in ("team/p/scanned", "team/p/exported"):
        scanned = way.default.run(path).scan_history(keys=["acc"])
        found.append(
            [
                next(scanned)["acc"],
                next(scanned)["acc"],
                next(scanned)["acc"],
                way.caught(next, scanned, kind="StopIteration"),
            ]
        )
    return found


@fact
def scan_of_keys(way: Way) -> Any:
    return [
        list(way.default.run(f"team/p/{name}").scan_history(keys=["loss"]))
        for name in ("scanned", "exported", "partly")
    ]


@fact
def scan_of_keys_logged_apart(way: Way) -> Any:
    """Rows that hold all keys, of which there are few or none."""
    run = way.default.run(RUN)
    return [list(run.scan_history(keys=keys)) for keys in (["late"], ["acc", "late"], ["acc", "none"])]


@fact
def scan_in_small_pages(way: Way) -> Any:
    return [
        list(way.default.run(f"team/p/{name}").scan_history(keys=["acc"], page_size=2)) for name in ("long", "partly")
    ]


@fact
def scan_again(way: Way) -> Any:
    """A scan that was left early starts again with the next loop."""
    found = []
    for name in ("scanned", "exported"):
        scanned = way.default.run(f"team/p/{name}").scan_history(keys=["acc"])
        left = []
        for row in scanned:
            if len(left) == 2:
                break
            left.append(row["acc"])
        found.append([left, [row["acc"] for row in scanned], [row["acc"] for row in scanned]])
    return found


@fact
def scan_within_bounds(way: Way) -> Any:
    found = {}
    for name in ("scanned", "exported"):
        run = way.default.run(f"team/p/{name}")
        bounds: tuple[dict[str, int], ...] = (
            *({"max_step": 100}, {"max_step": 1}, {"min_step": 1}, {"min_step": 1, "max_step": 2}),
            *({"max_step": 0}, {"min_step": 3}, {"min_step": 2, "max_step": 1}),
        )
        found[name] = [[row["_step"] for row in run.scan_history(keys=["acc"], **bound)] for bound in bounds]
    return found


@fact
def the_last_step_of_a_scan(way: Way) -> Any:
    run = way.default.run("team/p/scanned")
    scans = [
        run.scan_history(),
        run.scan_history(max_step=100),
        run.scan_history(max_step=1),
        run.scan_history(keys=["acc"]),
    ]
    return [[one.max_step, one.min_step, one.page_size, one.keys] for one in scans]


@fact
def scan_across_gaps(way: Way) -> Any:
    """Pages without a row do not end a scan."""
    run = way.default.run("team/p/gaps")
    return [[row["_step"] for row in run.scan_history(page_size=size)] for size in (2, 100, 1000)]


@fact
def scan_with_keys_that_are_no_list(way: Way) -> Any:
    run = way.default.run("team/p/scanned")
    return [way.caught(run.scan_history, keys=keys) for keys in ("acc", [["acc"]], ["acc", 1])]


@fact
def exports(way: Way) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        run = way.default.run("team/p/exported")
        found = run.download_history_exports(folder, require_complete_history=False)
        return [
            [Path(path).name for path in found.paths],
            [Path(path).exists() for path in found.paths],
            found.contains_live_data,
        ]


@fact
def exports_that_are_not_complete(way: Way) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        try:
            way.default.run("team/p/partly").download_history_exports(folder)
        except Exception as error:  # noqa: BLE001
            return type(getattr(error, "exc", None) or error).__name__
        return None


# Lists


@fact
def a_list_of_runs(way: Way) -> Any:
    runs = way.api().runs("team/p", {"group": "A"}, order="+created_at", per_page=2)
    length = len(runs)
    first = runs[0]
    found = [
        length,
        bool(runs),
        first.id,
        first.group,
        first.job_type,
        first.summary_metrics,
        runs[3].id,
        [run.id for run in runs],
    ]
    return [*found, len(runs), runs.more, [run.id for run in runs[1:3]]]


@fact
def what_is_loaded_of_a_list(way: Way) -> Any:
    runs = way.api().runs("team/p", {"group": "A"}, order="+created_at", per_page=2)
    found = [len(runs), len(runs.objects)]
    return [*found, [run.id for run in runs], len(runs.objects)]


@fact
def behind_the_end_of_a_list(way: Way) -> Any:
    runs = way.api().runs("team/p", {"group": "A"}, order="+created_at", per_page=2)
    return [way.caught(runs.__getitem__, 4, kind="IndexError"), way.caught(runs.__getitem__, 1000, kind="IndexError")]


@fact
def a_list_run_by_run(way: Way) -> Any:
    runs = way.api().runs("team/p", {"group": "A"}, order="+created_at", per_page=2)
    found = [next(runs).id for _ in range(4)]
    return [found, way.caught(next, runs, kind="StopIteration")]


@fact
def what_a_list_says_of_itself(way: Way) -> Any:
    return repr(way.default.runs("team/p"))


@fact
def a_list_without_runs(way: Way) -> Any:
    api = way.api()
    found = []
    for path, filters in (("team/hollow", None), ("team/p", {"group": "none"})):
        runs = api.runs(path, filters)
        found.append(
            [
                len(runs),
                list(runs),
                way.caught(runs.__getitem__, 0, kind="IndexError"),
                runs.histories(format="default"),
                runs.more,
            ]
        )
        found.append([runs.histories(samples=2, format=form).shape for form in ("pandas", "polars")])
    return found


@fact
def runs_of_a_project_that_is_not_there(way: Way) -> Any:
    """An error, whether the list is counted or read."""
    return [
        way.caught(lambda: len(way.default.runs("team/none")), kind="ValueError"),
        way.caught(lambda: list(way.default.runs("team/none")), kind="ValueError"),
    ]


@fact
def runs_with_their_sweeps(way: Way) -> Any:
    runs = way.default.runs("team/swept", order="+created_at", include_sweeps=True)
    return [(run.id, run.sweep_name, run.sweep and run.sweep.id) for run in runs]


@fact
def histories(way: Way) -> Any:
    runs = way.default.runs("team/p", {"name": {"$in": ["run0", "run1"]}}, order="+created_at")
    return runs.histories(samples=50, keys=["acc"], format="default")


@fact
def histories_without_keys(way: Way) -> Any:
    runs = way.default.runs("team/p", {"name": {"$in": ["scanned", "long"]}}, order="+created_at")
    rows = runs.histories(samples=50, format="default")
    return [[row["_step"], row["acc"], row["run_id"], sorted(row)] for row in rows if row["_step"] < 3]


@fact
def histories_as_frames(way: Way) -> Any:
    runs = way.default.runs("team/p", {"name": {"$in": ["run0", "run1"]}}, order="+created_at")
    found = []
    for form in ("pandas", "polars"):
        frame = runs.histories(samples=2, keys=["acc", "loss"], format=form)
        found.append([frame.shape, list(frame.columns), sorted(set(frame["run_id"]))])
    return found


@fact
def histories_of_the_machine(way: Way) -> Any:
    runs = way.default.runs("team/p", {"name": "run0"})
    return [[row["system.cpu"], row["run_id"]] for row in runs.histories(stream="system")]


@fact
def histories_in_a_form_that_there_is_not(way: Way) -> Any:
    return way.caught(way.default.runs("team/p").histories, format="xml")


# Projects


@fact
def projects(way: Way) -> Any:
    found = way.default.projects("team")
    return [
        sorted(project.name for project in found),
        {type(project).__name__ for project in found} == {"Project"},
    ]


@fact
def projects_of_nobody(way: Way) -> Any:
    return list(way.default.projects("nobody"))


@fact
def a_project(way: Way) -> Any:
    project = way.default.project("p", "team")
    url = project.url.removeprefix(os.environ["FACTS_PAGES"])
    return [project.name, project.entity, project.path, url, repr(project)]


@fact
def what_the_server_tells_of_a_project(way: Way) -> Any:
    project = way.default.project("p", "team")
    return [project.id, project.created_at, project.is_benchmark]


@fact
def the_owner_of_a_project(way: Way) -> Any:
    owner = way.default.project("p", "team").owner
    return [owner.name, owner.username]


@fact
def a_project_that_is_not_there(way: Way) -> Any:
    return way.caught(lambda: way.default.project("none", "team").id, kind="ValueError")


@fact
def a_project_in_a_notebook(way: Way) -> Any:
    project = way.default.from_path("p")
    return [project.display(), "/team/p/workspace?jupyter=true" in project.to_html()]


# Reports


@fact
def reports_of_a_project(way: Way) -> Any:
    names = ("id", "name", "display_name", "description", "created_at", "updated_at", "spec")
    reports = way.default.reports("team/p")
    return [[getattr(report, name) for name in names] + [report.user["username"]] for report in reports]


@fact
def a_report_by_its_name(way: Way) -> Any:
    (report,) = way.default.reports("team/p", name="one")
    assert report.url.startswith(f"{os.environ['FACTS_PAGES']}/team/p/reports/Which-rate--")
    return [report.url.rpartition("/")[2], "?jupyter=true" in report.to_html(), report.displayName]


@fact
def runs_of_a_section_of_an_old_report(way: Way) -> Any:
    (report,) = way.default.reports("team/p", name="two")
    section = report.sections[0]
    return [
        [run.id for run in report.runs(section)],
        sorted(run.id for run in report.runs(section, only_selected=False)),
    ]


@fact
def a_project_without_reports(way: Way) -> Any:
    return [list(way.default.reports("team/hollow")), way.caught(lambda: list(way.default.reports("team/none")))]


# Sweeps


@fact
def sweeps_of_a_project(way: Way) -> Any:
    sweeps = way.default.project("swept", "team").sweeps()
    return [len(sweeps), sorted(sweep.id for sweep in sweeps), type(sweeps[0]).__name__]


@fact
def sweeps_page_by_page(way: Way) -> Any:
    sweeps = way.default.project("swept", "team").sweeps(per_page=1)
    return [
        len(sweeps),
        sorted([sweeps[0].id, sweeps[1].id, sweeps[2].id]),
        way.caught(sweeps.__getitem__, 3, kind="IndexError"),
    ]


@fact
def a_project_without_sweeps(way: Way) -> Any:
    found = []
    for name in ("p", "hollow"):
        sweeps = way.default.project(name, "team").sweeps()
        found.append([len(sweeps), list(sweeps), sweeps.more, way.caught(sweeps.__getitem__, 0, kind="IndexError")])
    return found


@fact
def what_sweeps_say_of_themselves(way: Way) -> Any:
    return repr(way.default.project("swept", "team").sweeps())


@fact
def sweeps_that_fit_a_filter(way: Way) -> Any:
    project = way.default.project("swept", "team")
    return [
        [sweep.id for sweep in project.sweeps(filters=filters)] for filters in ({"name": "grid0"}, {"state": "PENDING"})
    ]


SWEEPS = ("grid0", "nameless", "waiting")


@fact
def a_sweep(way: Way) -> Any:
    names = ("id", "name", "entity", "project", "state", "path", "expected_run_count", "config", "order")
    api = way.default
    return {sweep: {name: getattr(api.sweep(f"team/swept/{sweep}"), name) for name in names} for sweep in SWEEPS}


@fact
def what_a_sweep_says_of_itself(way: Way) -> Any:
    return [str(way.default.sweep(f"team/swept/{sweep}")) for sweep in SWEEPS]


@fact
def forms_of_a_path_of_a_sweep(way: Way) -> Any:
    forms = ("team/swept/sweeps/grid0", "team/swept/grid0", "swept/grid0", "/team/swept/sweeps/grid0")
    return [way.default.sweep(form).path for form in forms] + [
        way.api(entity="team", project="swept").sweep("grid0").path
    ]


@fact
def fields_of_a_sweep_by_the_names_of_the_server(way: Way) -> Any:
    sweep = way.default.sweep("team/swept/grid0")
    return [sweep.method, sweep.run_count, sweep.best_loss, sweep.display_name, sweep.description, sweep.created_at]


@fact
def a_sweep_that_is_not_there(way: Way) -> Any:
    api = way.default
    return [way.caught(api.sweep, "team/swept/none"), way.caught(api.sweep, "team/none/grid0")]


@fact
def a_sweep_is_opened_once(way: Way) -> Any:
    api = way.api()
    return api.sweep("team/swept/grid0") is api.sweep("team/swept/grid0")


@fact
def a_sweep_got_by_its_parts(way: Way) -> Any:
    api = way.default
    kind = type(api.sweep("team/swept/grid0"))
    return [
        kind.get(api, "team", "swept", name) and kind.get(api, "team", "swept", name).id
        for name in ("grid0", "waiting", "none")
    ]


@fact
def the_runs_of_a_sweep(way: Way) -> Any:
    api = way.default
    return {
        sweep: [[run.id for run in api.sweep(f"team/swept/{sweep}").runs], len(api.sweep(f"team/swept/{sweep}").runs)]
        for sweep in SWEEPS
    }


@fact
def the_best_run_of_a_sweep(way: Way) -> Any:
    api = way.default
    best = [api.sweep(f"team/swept/{sweep}").best_run() for sweep in SWEEPS]
    ordered = api.sweep("team/swept/grid0").best_run("-summary_metrics.loss")
    return [run and run.id for run in (*best, ordered)]


@fact
def the_sweep_of_a_run(way: Way) -> Any:
    run = way.default.run("team/swept/s0")
    sweep = run.sweep
    reported = [
        sweep.id,
        sweep.name,
        sweep.entity,
        sweep.project,
        sweep.state,
        run.sweep_name,
        run.summary_metrics["loss"],
    ]
    return [*reported, way.default.run(RUN).sweep]


@fact
def a_sweep_in_a_notebook(way: Way) -> Any:
    sweep = way.default.from_path("team/swept/sweeps/grid0")
    assert sweep.url == f"{os.environ['FACTS_PAGES']}/team/swept/sweeps/grid0"
    return [sweep.display(), "/team/swept/sweeps/grid0?jupyter=true" in sweep.to_html()]


# Files


@fact
def files(way: Way) -> Any:
    found = way.default.run(RUN).files()
    reported = [(file.name, file.size, file.mimetype, file.md5, file.id) for file in found]
    return [len(found), reported]


@fact
def files_in_small_pages(way: Way) -> Any:
    found = way.default.run(RUN).files(per_page=1)
    return [len(found), [file.name for file in found], found[1].name]


@fact
def files_by_name_and_pattern(way: Way) -> Any:
    run = way.default.run(RUN)
    asked: tuple[dict[str, Any], ...] = (
        *({"names": ["a.json"]}, {"names": ["none"]}, {"names": []}, {"pattern": "%.json"}, {"pattern": "media/%"}),
        {"names": ["a.json", "media/ü %.png"]},
    )
    return [[file.name for file in run.files(**arguments)] for arguments in asked]


@fact
def names_and_a_pattern(way: Way) -> Any:
    return way.caught(way.default.run(RUN).files, names=["a.json"], pattern="%")


@fact
def when_a_file_was_uploaded(way: Way) -> Any:
    return way.default.run(RUN).file("a.json").updated_at


@fact
def a_file(way: Way) -> Any:
    file = way.default.run(RUN).file("a.json")
    return [file.name, file.size, file.mimetype, file.md5]


@fact
def a_file_that_is_not_there(way: Way) -> Any:
    return way.caught(way.default.run(RUN).file, "none") is not None


@fact
def the_direct_address_of_a_file(way: Way) -> Any:
    import urllib.request

    with urllib.request.urlopen(way.default.run(RUN).file("a.json").direct_url) as answer:
        return answer.read().decode()


@fact
def a_download(way: Way) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = way.default.run(RUN).file("media/ü %.png")
        with file.download(root=folder) as handle:
            first = [handle.read(), Path(handle.name).relative_to(folder)]
        again = way.caught(file.download, root=folder)
        with file.download(root=folder, exist_ok=True) as kept, file.download(root=folder, replace=True) as replaced:
            return [*first, again, kept.read(), replaced.read()]


# Console


@fact
def console(way: Way) -> Any:
    return [
        (line.number, line.timestamp, line.level, line.label, line.content)
        for line in way.default.run(RUN).console_logs()
    ]


@fact
def console_in_small_pages(way: Way) -> Any:
    return [line.number for line in way.default.run(RUN).console_logs(per_page=2)]


@fact
def the_end_of_a_console(way: Way) -> Any:
    run = way.default.run(RUN)
    return [[line.number for line in run.console_logs(last=last)] for last in (2, 100)]


@fact
def a_run_without_console(way: Way) -> Any:
    return list(way.default.run("team/odd/empty").console_logs())


# A server of an older version


@fact
def sweeps_where_they_cannot_be_filtered(way: Way) -> Any:
    """Their list still comes; a filter is refused, and not left out."""
    project = way.old().project("p", "team")
    refused = way.caught(lambda: list(project.sweeps(filters={"name": "sw1"}))) is not None
    return [[sweep.id for sweep in project.sweeps()], refused]


@fact
def a_server_that_takes_no_runs_for_sweeps(way: Way) -> Any:
    sweep = way.old().sweep("team/p/sw1")
    return [sweep.name, way.caught(sweep.enqueue_run, {"lr": {"value": 1}}) is not None]


@fact
def a_server_that_changes_no_states(way: Way) -> Any:
    run = way.old().run("team/p/run0")
    return [way.caught(run.update_state, "pending"), run.state]


if __name__ == "__main__":
    main(ASKED)
