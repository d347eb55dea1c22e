"""wandb2numpy: metrics of many runs as arrays, whole and as samples."""

import contextlib
import io
import json
import sys

from wandb2numpy.export import export_data

entity, project, keys = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
base = {"entity": entity, "project": project, "fields": keys, "output_path": "."}
for samples in ("all", 300):
    with contextlib.redirect_stdout(io.StringIO()):
        found, _ = export_data({"one": base | {"history_samples": samples}})
    print(json.dumps({key: found["one"][key].tolist() for key in keys}))
