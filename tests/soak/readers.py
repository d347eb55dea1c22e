"""A reader of the published file, run by the Python of another DuckDB version: needs nothing but `duckdb`.

    python readers.py FILE SECONDS

Opens the file, holds it for SECONDS (0: one look), and looks at it all the while; then opens it again, until stdin
ends. Every look must find the history that `runs` tells of, and the same as the first through this connection. Prints
how often it opened the file and looked, and how often DuckDB 2.0 failed as the file was replaced between its two
openings of it.
"""

import sys
import threading
import time
from pathlib import Path

import duckdb

LOOK = """
    SELECT r.run_id, r.history_rows, r.config, h.rows, h.last, w."config.turn"
    FROM runs AS r
    JOIN (SELECT run_id, count(DISTINCT step) AS rows, max(step) AS last FROM history GROUP BY ALL) AS h USING (run_id)
    JOIN "team/p" AS w USING (run_id)
    ORDER BY r.run_id
"""


def main() -> None:
    """Read until stdin ends."""
    path, seconds = sys.argv[1], float(sys.argv[2])
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    opened = looks = torn = 0
    newest: dict[str, int] = {}
    while not ended.is_set():
        before, first = Path(path).stat().st_ino, None
        try:
            with duckdb.connect(path, read_only=True) as connection:
                opened += 1
                until = time.monotonic() + seconds
                while first is None or (time.monotonic() < until and not ended.is_set()):
                    found = connection.execute(LOOK).fetchall()
                    looks += 1
                    if first is None:
                        first = found
                    if found != first:
                        raise SystemExit(f"one connection saw {first}, then {found}")
                    time.sleep(0.05 if seconds else 0)
        except duckdb.Error:
            if first is not None or duckdb.__version__ < "2" or Path(path).stat().st_ino == before:
                raise
            torn += 1
            continue
        for run_id, rows, config, counted, last, turn in first:
            if not rows == counted == last + 1:
                raise SystemExit(f"{run_id}: {rows} rows reported, {counted} there, the last at step {last}")
            if config != f'{{"turn":{turn:.0f}}}':
                raise SystemExit(f"{run_id}: config {config}, but {turn} in the wide view")
            if rows < newest.get(run_id, 0):
                raise SystemExit(f"{run_id}: {rows} rows after {newest[run_id]}")
            newest[run_id] = rows
        if len(first) < len(newest):
            raise SystemExit(f"{len(first)} runs after {len(newest)}")
    print(duckdb.__version__, opened, looks, torn)


if __name__ == "__main__":
    main()
