"""A command ends with its exit code and its output although threads of it hang."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from mirror import threads
from mirror.threads import DaemonThreads

SCRIPT = """
import asyncio, sys, threading
from mirror import threads
from mirror import cli
from mirror.cli import ending

threads.PATIENCE = 0.1
for_ever = threading.Event().wait

async def work():
    {hang}
    await asyncio.sleep(0.05)
    return "done"

print(ending.run(work()))
cli.end(3)
"""


@pytest.mark.parametrize(
    "hang",
    [
        "asyncio.ensure_future(asyncio.to_thread(for_ever))",
        "asyncio.ensure_future(threads.in_thread(for_ever))",
        "threading.Thread(target=for_ever).start()",
        "None",
    ],
)
def test_a_process_ends_although_a_thread_hangs(hang):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(hang=hang)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")


def test_threads_are_used_again_and_no_more_are_started_than_allowed():
    pool = DaemonThreads(2, "some")
    try:
        names = {pool.submit(threading.get_ident).result() for _ in range(20)}
        assert len(names) <= 2
        together = threading.Barrier(2)
        assert len({each.result() for each in [pool.submit(together.wait, 10) for _ in range(6)]}) == 2
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 / 0).result()
    finally:
        pool.shutdown()
    assert not any(thread.is_alive() for thread in pool._started)
    with pytest.raises(RuntimeError):
        pool.submit(print)


def test_what_waits_for_threads_that_hang_is_cancelled_at_the_end(monkeypatch):
    monkeypatch.setattr(threads, "PATIENCE", 0.01)
    pool, goes_on = DaemonThreads(1, "some"), threading.Event()
    first, second = pool.submit(goes_on.wait, 30), pool.submit(print)
    pool.shutdown()
    assert second.cancelled()
    goes_on.set()
    assert first.result(10) is True
    pool._started[0].join(10)
    assert not pool._started[0].is_alive()


def test_the_event_loop_does_all_it_was_given():
    async def work():
        asyncio.get_running_loop().set_default_executor(DaemonThreads(2, "some"))
        return await asyncio.gather(*(asyncio.to_thread(pow, 2, power) for power in range(50)))

    assert asyncio.run(work()) == [2**power for power in range(50)]
