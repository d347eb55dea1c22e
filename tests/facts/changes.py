"""What a script changes of runs, files and sweeps, and what it reads afterwards. Each way has a project of its own."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from way import Ask, Way, main, until

ASKED: list[Ask] = []


def fact(ask: Ask) -> Ask:
    ASKED.append(ask)
    return ask


@fact
def a_run_is_created(way: Way) -> Any:
    entity, project = way.project.split("/")
    run = way.api().create_run(run_id="made", project=project, entity=entity)
    found = [run.id, run.path == [entity, project, "made"], run.state, run.tags, run.config, run.summary_metrics]
    run.summary.update({"cool": 1000})
    return [*found, run.load()["name"], run.load()["name"], run.summary["cool"]]


@fact
def a_run_is_created_where_nothing_is_named(way: Way) -> Any:
    run = way.api().create_run()
    return [run.entity, run.project, len(run.id)]


@fact
def a_run_is_created_in_the_entity_that_is_the_default(way: Way) -> Any:
    run = way.api().create_run(run_id="home", project=way.project.split("/")[1])
    return run.entity


@fact
def a_run_is_created_pending(way: Way) -> Any:
    entity, project = way.project.split("/")
    run = type(way.run("edited")).create(way.api(), "later", project, entity, state="pending")
    return [run.id, run.state]


@fact
def a_run_is_edited(way: Way) -> Any:
    run = way.run("edited")
    run.tags.append("test")
    run.config["foo"] = "bar"
    run.config["more"] = {"deep": [1, None, "x"]}
    del run.config["gone"]
    run.notes, run.name, run.description, run.group, run.job_type = "noted", "renamed", "described", "B", "eval"
    run.summary["acc"] = 7
    run.update()
    return [
        run.tags,
        run.config,
        run.rawconfig["_wandb"],
        run.notes,
        run.name,
        run.group,
        run.job_type,
        run.summary["acc"],
    ]


@fact
def saving_is_updating(way: Way) -> Any:
    run = way.run("saved")
    run.display_name = "saved"
    run.tags = ["a", "b"]
    run.save()
    return [run.display_name, run.tags]


@fact
def an_update_without_changes(way: Way) -> Any:
    run = way.run("untouched")
    run.update()
    return [run.config, run.tags, run.notes, run.summary_metrics]


@fact
def a_summary_is_updated(way: Way) -> Any:
    run = way.run("summed")
    run.summary.update({"cool": 1000, " spaced ": 1})
    run.summary["nested"] = {"a": {"b": 2}}
    run.summary.update({"cool": 5, "fresh": 6}, overwrite=False)
    run.summary.by_name = 3
    run.summary.update()
    return [run.summary["cool"], run.summary["nested"]["a"]["b"], run.summary["by_name"], sorted(run.summary.keys())]


@fact
def a_summary_key_is_deleted(way: Way) -> Any:
    run = way.api(entity="team").run(f"{way.project.split('/')[1]}/trimmed")
    del run.summary["acc"]
    run.update()
    return [way.caught(run.summary.__getitem__, "acc", kind="KeyError"), run.summary.get("loss")]


@fact
def a_run_is_deleted(way: Way) -> Any:
    run = way.deleting().run(f"{way.project}/doomed")
    run.delete()
    gone = until("CommError", lambda: way.caught(way.run, "doomed"))
    names = until([], lambda: [one.id for one in way.api().runs(way.project, {"name": "doomed"})])
    return [gone, names, way.caught(run.delete)]


@fact
def a_run_is_deleted_with_its_artifacts(way: Way) -> Any:
    way.deleting().run(f"{way.project}/doomed too").delete(delete_artifacts=True)
    return until("CommError", lambda: way.caught(way.run, "doomed too"))


@fact
def a_state_is_changed(way: Way) -> Any:
    run = way.run("live")
    done = [run.update_state("failed"), run.state]
    refused = way.said(lambda: run.update_state("failed"))
    return [*done, "invalid state transition" in refused, way.caught(run.update_state, "failed"), run.state]


@fact
def a_state_goes_back_to_pending(way: Way) -> Any:
    run = way.run("lost")
    return [run.state, run.update_state("pending"), run.state]


@fact
def the_state_of_a_run_of_a_sweep(way: Way) -> Any:
    return way.caught(way.run("swept").update_state, "failed")


@fact
def a_run_is_asked_to_stop(way: Way) -> Any:
    return [way.run(run_id).stop() for run_id in ("stopped", "edited")]


@fact
def a_file_is_uploaded(way: Way) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "in").mkdir()
        (root / "in" / "weights.txt").write_text("as trained")
        run = way.run("filed")
        file = run.upload_file(str(root / "in" / "weights.txt"), root=folder)
        reported = [file.name, file.size, file.mimetype]
        names = until(["in/weights.txt", "old.txt"], lambda: [one.name for one in way.run("filed").files()])
        with way.run("filed").file("in/weights.txt").download(root=folder, replace=True) as handle:
            return [*reported, names, handle.read()]


@fact
def a_file_outside_of_the_root(way: Way) -> Any:
    """Goes up, under a name that leads nowhere else; the client then looks for it under the name that was given."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        root.mkdir()
        Path(folder, "test.txt").write_text("test")
        way.caught(way.run("climbing").upload_file, str(root.parent / "test.txt"), root=str(root))
    return until(["__/test.txt"], lambda: [file.name for file in way.run("climbing").files()])


@fact
def a_file_is_deleted(way: Way) -> Any:
    run = way.run("shrinking")
    before = [file.name for file in run.files()]
    run.files()[0].delete()
    return [before, until([], lambda: [file.name for file in way.run("shrinking").files()])]


@fact
def files_of_several_runs_are_deleted(way: Way) -> Any:
    wanted = {"name": {"$in": ["shrink0", "shrink1"]}}
    for run in way.api().runs(way.project, wanted):
        run.files()[0].delete()
    return until([[], []], lambda: [[file.name for file in run.files()] for run in way.api().runs(way.project, wanted)])


@fact
def a_server_that_fails_once(way: Way) -> Any:
    return way.run("retried").summary_metrics


@fact
def what_was_written_is_read(way: Way) -> Any:
    """By whoever comes after: on the endpoint once a pass has brought it."""

    def read() -> Any:
        edited, saved, summed, trimmed, made = map(way.run, ("edited", "saved", "summed", "trimmed", "made"))
        return [
            [edited.tags, edited.config, edited.notes, edited.name, edited.description, edited.group, edited.job_type],
            [edited.summary_metrics, saved.name, saved.tags, summed.summary_metrics, trimmed.summary_metrics],
            [made.summary_metrics, made.state, way.run("later").state, way.run("live").state, way.run("lost").state],
        ]

    return until(json.loads(os.environ["FACTS_WRITTEN"]), read)


# Sweeps. Making one names its project in the environment, for scripts that start agents; so these come last.

BY_METHOD: dict[str, dict[str, Any]] = {
    "grid": {"name": "a grid", "method": "grid", "parameters": {"one": {"values": [1, 2, 3]}}},
    "nested": {
        "name": "nested",
        "method": "grid",
        "parameters": {
            "one": {"values": [1, 2, 3]},
            "two": {"parameters": {"three": {"values": [1, 2, 3]}, "four": {"value": 1}}},
        },
    },
    "bayes": {
        "name": "bayes",
        "method": "bayes",
        "metric": {"name": "acc", "goal": "maximize"},
        "parameters": {"one": {"values": [1]}},
    },
    "random": {"name": "random", "method": "random", "parameters": {"one": {"min": 0, "max": 1}}},
    "nameless": {"method": "random", "parameters": {"one": {"values": [1]}}},
}
MADE: dict[str, str] = {}


def made(way: Way, which: str, **more: Any) -> str:
    import wandb

    entity, project = way.project.split("/")
    MADE[which] = wandb.sweep(BY_METHOD[which], entity=entity, project=project, **more)
    return f"{way.project}/sweeps/{MADE[which]}"


@fact
def sweeps_are_made(way: Way) -> Any:
    found = {}
    for which in BY_METHOD:
        path = made(way, which)
        sweep = way.api().sweep(path)
        named = str(sweep) == f"<Sweep {way.project}/{MADE[which]} (PENDING)>"
        name = sweep.name if which != "nameless" else sweep.name == MADE[which]
        same = [sweep.id == MADE[which], sweep.path == path.replace("/sweeps/", "/").split("/")]
        page = sweep.url == f"{os.environ['FACTS_PAGES']}/{path}"
        config = sweep.config["method"] == BY_METHOD[which]["method"] and sorted(sweep.config["parameters"])
        found[which] = [
            name,
            sweep.state,
            sweep.entity,
            sweep.expected_run_count,
            sweep.order,
            named,
            *same,
            page,
            config,
        ]
    return found


@fact
def a_sweep_is_listed_once_it_is_made(way: Way) -> Any:
    project = way.api().project(way.project.split("/")[1], "team")

    def listed() -> list[str]:
        return sorted(sweep.id for sweep in (way.api().project(project.name, "team") if mirrored else project).sweeps())

    # The mirror's Python API shows what the next pass has pulled; the endpoint knows what went through it.
    mirrored, wanted = way.name == "mirror", sorted([*MADE.values(), "sw1"])
    return (until(wanted, listed) if mirrored else listed()) == wanted


@fact
def a_sweep_with_prior_runs(way: Way) -> Any:
    entity, project = way.project.split("/")
    path = made(way, "grid", prior_runs=["edited"])
    query = (
        "query Sweep($project: String, $entity: String, $name: String!) { project(name: $project, entityName: $entity) "
        "{ sweep(sweepName: $name) { id name state runCountExpected bestLoss config priorRuns { edges { node { name } } } } } }"
    )
    api = way.api()
    found = type(api.sweep(path)).get(api, entity, project, MADE["grid"], query=query)
    return [found.expected_run_count, found.prior_runs["edges"]]


@fact
def a_sweep_is_renamed(way: Way) -> Any:
    import wandb
    from wandb.apis.public.sweeps import _upsert_sweep

    first = way.api().sweep(f"{way.project}/{MADE['bayes']}")
    before = first.name
    entity, project = way.project.split("/")
    storage_id = first.load()["id"]
    _upsert_sweep(
        wandb.Api(), BY_METHOD["bayes"], obj_id=storage_id, entity=entity, project=project, display_name="renamed"
    )

    def name() -> str:
        return str(way.api().sweep(f"{way.project}/{MADE['bayes']}").name)

    return [before, until("renamed", name) if way.name == "mirror" else name()]


@fact
def a_run_of_a_sweep_is_enqueued(way: Way) -> Any:
    sweep = way.api().sweep(f"{way.project}/{MADE['bayes']}")
    return isinstance(sweep.enqueue_run({"one": {"value": 1}}, display_name="queued"), str)


if __name__ == "__main__":
    main(ASKED)
