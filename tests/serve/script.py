"""Everything that a script reads through the official SDK, printed as JSON lines; run against server and mirror."""

import json
import sys

import wandb

PROJECTS = sys.argv[1:] or ["my-team/vision", "my-team/oddities"]
FILTERS = (
    {"state": "failed"},
    {"config.batch_size": {"$gt": 64}},
    {"tags": "gpu"},
    {"display_name": {"$regex": "^s"}},
    {"$or": [{"config.lr.value": {"$lt": 0.0005}}, {"summary_metrics.loss": {"$gt": 1}}]},
    {"$and": [{"created_at": {"$gt": "2025-03-03T10:30:00"}}, {"username": {"$ne": "ada"}}]},
)
ORDERS = ("+created_at", "-created_at", "heartbeat_at", "-config.lr.value", "+summary_metrics.loss")


def tell(name, value):
    print(json.dumps([name, value], sort_keys=True, default=str), flush=True)


api = wandb.Api(timeout=20)
tell("viewer", [api.viewer.username, api.default_entity])
tell("viewer's name", [api.viewer.name, api.viewer.id, api.viewer.email, api.viewer.teams, api.viewer.api_keys])
for project in api.projects("my-team"):
    tell(f"project {project.name}", [project.id, project.created_at, project.is_benchmark, project.owner.name])
for path in PROJECTS:
    runs = api.runs(path, per_page=3)
    tell("length", [len(runs), [run.id for run in runs[1:4]], runs[0].id])
    for run in runs:
        labels = [run.name, run.state, run.tags, run.group, run.job_type, run.notes, run.description, run.sweep_name]
        tell(
            run.id, [*labels, run.created_at, run.heartbeat_at, run.commit, run.user.username, run.storage_id, run.path]
        )
        tell(f"{run.id} user", [run.user.name, run.user.username, run._project_internal_id, run.read_only])
        tell(f"{run.id} system", [run.system_metrics, run.history(stream="system", pandas=False)])
        tell(f"{run.id} config", run.config)
        tell(f"{run.id} raw config", run.rawconfig)
        tell(f"{run.id} summary", run.summary._json_dict)
        tell(f"{run.id} last step", run.lastHistoryStep)
        tell(f"{run.id} history", run.history(pandas=False, samples=10_000))
        tell(f"{run.id} history of a key", run.history(pandas=False, keys=["loss"], samples=10_000))
        tell(f"{run.id} samples", len(run.history(pandas=False, samples=7)))
        files = [(file.id, file.name, file.size, file.mimetype, file.updated_at, file.md5) for file in run.files()]
        tell(f"{run.id} files", [len(run.files()), files, [file.name for file in run.files(names=["notes.txt"])]])
        tell(f"{run.id} scan", list(run.scan_history(page_size=100_000, use_cache=False)))
    for order in ORDERS:
        tell(f"{path} {order}", [run.id for run in api.runs(path, order=order)])
    for filters in FILTERS:
        found = api.runs(path, filters=filters, lazy=False)
        tell(f"{path} {filters}", [len(found), [[run.id, run.config, run.summary._json_dict] for run in found]])
run = api.run(f"{PROJECTS[0]}/vision00")
tell("scan with bounds", [row["_step"] for row in run.scan_history(page_size=30, min_step=10, max_step=75)])
tell("scan of keys", list(run.scan_history(keys=["val/acc", "_step"])))
tell("frame", json.loads(run.history().to_json()))
tell("system", run.history(stream="system", pandas=False))
tell("x axis", run.history(keys=["loss"], x_axis="_timestamp", pandas=False))
