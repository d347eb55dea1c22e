"""wandb-buddy: the runs of a project as a table."""

import json
import sys

from wandb_buddy import load_runs

entity, project = sys.argv[1:3]
for options in ({"state": "all"}, {"tags": ["baseline"]}, {"filters": {"config.lr": {"$lt": 0.01}}, "state": "all"}):
    frame = load_runs(entity, project, **options)
    # Summaries hold what no JSON writer takes as it is.
    print(json.dumps([{key: str(value) for key, value in row.items()} for row in frame.to_dict("records")]))
