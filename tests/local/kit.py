"""Writes `.wandb` files as the official client does, with its own protobuf messages, and reads them into a home."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import time
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2 as pb

from mirror.local import files
from mirror.local.ingest import Ingest
from mirror.local.reader import Options
from mirror.settings.home import Home
from mirror.settings.settings import Settings
from mirror.sync.session import open_writer

HEADER = b":W&B\xe1\xbe\x00"
BLOCK = 32 * 1024


EARLY = 7
"""Where `wandb-core` before 0.17.6 began its first block: its writer did not count the file's header.

A file of 3,000 steps by wandb 0.17.5 (`wandb.require("core")`, WANDB_MODE=offline) is the same, byte for byte, as its
records framed in this way.
"""


def framed(payloads, start=0, shift=0):
    """The bytes of records, the first of them at offset `start` of the file. `shift` is where the blocks begin."""
    out = bytearray()
    for payload in payloads:
        rest, first = payload, True
        while first or rest:
            left = BLOCK - (start + len(out) - shift) % BLOCK
            if left < 7:
                out += bytes(left)
                left = BLOCK
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not rest]
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return bytes(out)


def now() -> int:
    """The start of a run that still goes on."""
    return int(time.time())


class File:
    """A run's file that grows with every call. `start` is the time of its run, `shift` where its blocks begin."""

    def __init__(self, path: Path, run_id: str = "r1", start: int = 1_700_000_000, shift: int = 0, **fields) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.shift = shift
        self.start = start
        self.path.write_bytes(HEADER)
        run = pb.RunRecord(run_id=run_id, **{"project": "p", **fields})
        run.start_time.seconds = start
        self.add(run=run)

    def add(self, **record) -> File:
        """One record."""
        with self.path.open("ab") as stream:
            stream.write(framed([pb.Record(**record).SerializeToString()], stream.tell(), self.shift))
        return self

    def log(self, step: int | None = None, **values) -> File:
        """A history line; values that are no text are written as JSON, texts as they stand."""
        items = [pb.HistoryItem(nested_key=key.split("/"), value_json=text(value)) for key, value in values.items()]
        record = pb.HistoryRecord(item=items)
        if step is not None:
            record.item.add(key="_step", value_json=str(step))
            record.item.add(key="_timestamp", value_json=str(self.start + step))
            record.step.num = step
        return self.add(history=record)

    def lines(self, first: int, end: int, **values) -> File:
        """Lines of a loss that falls, one a step."""
        for step in range(first, end):
            self.log(step, loss=1 / (step + 1), **values)
        return self

    def config(self, *remove, **values) -> File:
        update = [pb.ConfigItem(nested_key=key.split("/"), value_json=text(value)) for key, value in values.items()]
        return self.add(config=pb.ConfigRecord(update=update, remove=[pb.ConfigItem(key=key) for key in remove]))

    def summary(self, *remove, **values) -> File:
        update = [pb.SummaryItem(nested_key=key.split("/"), value_json=text(value)) for key, value in values.items()]
        return self.add(summary=pb.SummaryRecord(update=update, remove=[pb.SummaryItem(key=key) for key in remove]))

    def stats(self, seconds: int, **values) -> File:
        record = pb.StatsRecord(item=[pb.StatsItem(key=key, value_json=text(value)) for key, value in values.items()])
        record.timestamp.seconds = self.start + seconds
        return self.add(stats=record)

    def exit(self, code: int = 0, runtime: int = 12) -> File:
        return self.add(exit=pb.RunExitRecord(exit_code=code, runtime=runtime))


def text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def run_file(root: Path, run_id: str = "r1", stamp: str = "20260101_000000", **fields) -> File:
    """A file where the client puts it."""
    return File(root / f"offline-run-{stamp}-{run_id}" / f"run-{run_id}.wandb", run_id, **fields)


def real_run(name: str) -> Path:
    """The folder of a real run beside the project; the test is skipped where these files are not at hand."""
    here = Path(__file__).resolve()
    roots = [Path(given) for given in [os.environ.get("MIRROR_REAL_RUNS")] if given]
    roots += [parent / "shared" / "data" / "real-runs" for parent in here.parents]
    for root in roots:
        if (root / name).is_dir():
            return root / name
    pytest.skip("the real runs are not committed, since strangers wrote them; MIRROR_REAL_RUNS names their folder")


def ingest(home: Home, *folders: Path, **options):
    """Read folders into a home, in this process; the results by file name."""

    async def work():
        with open_writer(home, Settings()) as writer:
            results = await Ingest(writer, Options(**options)).read(files.find(folders))
            await writer.publish()
            return results

    return asyncio.run(work())


@contextmanager
def damaged(path: Path):
    """The bytes of a file, to be changed inside the block."""
    content = bytearray(path.read_bytes())
    yield content
    path.write_bytes(content)
