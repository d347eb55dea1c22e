"""Empty mirrors to begin with: to make one takes four times as long as to copy it and to open the copy."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

from mirror.settings.home import Home
from mirror.store.store import Store

make = Store.open
"""What makes them, and opens every store."""

_turns = count()


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mirrors-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _mirror(number: int) -> Home:
    home = Home(data=_folder() / str(number), config=_folder() / "config.toml")
    make(home).close()
    return home


def put(home: Home) -> None:
    """Give this home the files of an empty mirror, if it has none of its own yet.

    Three take turns, so that the mirrors of one test are different ones.
    """
    try:
        home.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(path.exists() for path in (home.state, home.published, home.history)):
            return
    except OSError:  # as the store will find
        return
    made = _mirror(next(_turns) % 3)
    home.history.mkdir(mode=0o700)
    # The state is the older file, as after each publishing.
    for source, target in ((made.state, home.state), (made.published, home.published)):
        shutil.copy2(source, target)
