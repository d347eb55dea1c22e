"""Exports to a lake in a process of its own, which the daemon starts: `python -m mirror.lake.worker HOME URL SECONDS`.

Prints one line of JSON: the fields of `Export`, or `error`. It has low priority, and may be killed at any time.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

from msgspec.structs import asdict

from mirror.errors import MirrorError
from mirror.lake.export import export
from mirror.lake.target import find
from mirror.settings.home import Home

NICE = 10
MEMORY = "2GB"


def main() -> None:
    """Export all projects of the home."""
    data, url, keep = sys.argv[1:]
    os.nice(NICE)
    home = Home(Path(data), Path(data) / "config.toml")
    try:
        done = asdict(export(home, None, find(url), keep=timedelta(seconds=float(keep)), memory=MEMORY))
    except MirrorError as error:
        done = {"error": str(error)}
    print(json.dumps(done, default=lambda moment: moment.isoformat()))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
