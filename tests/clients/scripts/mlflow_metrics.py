"""Every metric, parameter and tag that a migration left in an MLflow store, by the name of the W&B run."""

import json
import sys

import mlflow

client = mlflow.MlflowClient(tracking_uri=sys.argv[1])
found = {}
for run in client.search_runs([one.experiment_id for one in client.search_experiments()], max_results=1000):
    name = run.data.tags.get("wandb.run_id") or run.info.run_name
    points = {
        key: sorted(
            (metric.step, metric.value, metric.timestamp) for metric in client.get_metric_history(run.info.run_id, key)
        )
        for key in run.data.metrics
    }
    found[name] = points | {f"param {key}": value for key, value in run.data.params.items()}
print(json.dumps(found, sort_keys=True))
