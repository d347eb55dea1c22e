"""Daemons as processes that are forked from one that has imported everything: an import takes longer than the rest.

What a process inherits is what the user's shell would give it: the environment, the folder and the streams that the
test names, and none of the threads or open files of the test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def _context() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.forked_imports"])
    with chdir(ROOT):  # from where `tests` is found
        ensure_running()
    return context


def _run(words: list[str], environ: dict[str, str], stderr: str, prelude: str) -> None:
    os.environ.clear()
    os.environ.update(environ)
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, os.devnull, os.O_WRONLY), (2, stderr, os.O_WRONLY)):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv[:] = ["mirror", *words]
    if prelude:
        exec(prelude, {"__name__": "prelude"})
    from mirror.cli import main

    sys.exit(main())


class Forked:
    """A running command, with the methods of `subprocess.Popen` that tests of daemons use."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], stderr: Path, prelude: str = "") -> None:
        self.args = words
        self._process = _context().Process(target=_run, args=(list(words), dict(environ), str(stderr), prelude))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
