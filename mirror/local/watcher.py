"""The process that watches folders for a daemon: `python -m mirror.local.watcher FOLDER...`.

To begin to watch a folder looks at everything below it, during which the library runs no other thread of its process.
For a large folder that takes seconds, and for a network folder that does not answer it never ends.

Prints JSON, a line each: "ready", then the paths of each change and, after those of one notification, null; or an
object with an `error`. It ends when its input does, as when the daemon was killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from watchfiles import Change, watch

from mirror.local import files


def main(folders: list[str]) -> int:
    """Watch until the input ends; the exit code is 1 if that is impossible."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    ready = False
    try:
        for changes in watch(
            *folders,
            watch_filter=_is_of_interest,
            debounce=300,
            step=50,
            rust_timeout=100,
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=True,
        ):
            if not ready:
                _print("ready")
                ready = True
            if changes:
                _print(*sorted({path for _, path in changes}), None)
    except (OSError, RuntimeError) as error:
        # Too many folders for this system, or one that was removed.
        _print({"error": str(error)})
        return 1
    return 0


def _print(*items: object) -> None:
    sys.stdout.write("".join(f"{json.dumps(item)}\n" for item in items))
    sys.stdout.flush()


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _is_of_interest(change: Change, path: str) -> bool:
    if change is Change.deleted:
        return False
    return files.is_run_file(path) or (change is Change.added and os.path.isdir(path))  # noqa: PTH112


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
