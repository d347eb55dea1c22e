"""Reads the runs of local files into a temporary mirror, which is deleted at the end."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from mirror.errors import UsageError
from mirror.local import files
from mirror.local.blocks import NotReadable
from mirror.local.commits import FileResult
from mirror.local.ingest import Ingest
from mirror.local.reader import Options, identify
from mirror.local.reading import order
from mirror.remote.client import Server
from mirror.settings.home import Home
from mirror.settings.settings import Settings
from mirror.store import checks, local
from mirror.store import reader as store
from mirror.store.reader import Reader
from mirror.store.records import ProjectKey
from mirror.sync.session import open_writer

RunKey = tuple[ProjectKey, str]


class Gathered(Struct, frozen=True):
    """What was read. `results` has one entry per file, `paths` each run's files in the order of its starts."""

    reader: Reader
    results: Sequence[FileResult]
    paths: dict[RunKey, list[Path]]

    def runs(self) -> dict[ProjectKey, list[str]]:
        """The runs of each project, in order."""
        found: dict[ProjectKey, list[str]] = {}
        for project, run_id in sorted(self.paths, key=lambda key: (str(key[0]), key[1])):
            found.setdefault(project, []).append(run_id)
        return found


def find(folders: Sequence[Path]) -> list[Path]:
    """Every run file in and below the folders. Raises UsageError if a folder does not exist or there are no files."""
    found = files.find(folders)
    if not found:
        named = ", ".join(map(str, folders))
        raise UsageError(f"no .wandb file below {named}; name a folder that holds wandb/ or its run folders")
    return found


async def entity_of(paths: Sequence[Path], server: Server, given: str | None) -> str | None:
    """The entity for runs that name none: the `given` one, else the key's default, as in the official client.

    Asks the server only if a file names none. Raises UsageError if the key has no default entity either.
    """
    if given or not (nameless := await asyncio.to_thread(_nameless, paths)):
        return given
    if found := (await server.viewer()).get("entity"):
        return str(found)
    raise UsageError(f"{nameless} names no entity, and the key has no default one: set WANDB_ENTITY to its entity")


def _nameless(paths: Sequence[Path]) -> Path | None:
    for path in paths:
        try:
            identity = identify(path)
        except (OSError, NotReadable):
            # Reported when the file is read.
            continue
        if identity is not None and not identity.entity:
            return path
    return None


@asynccontextmanager
async def gathered(paths: Sequence[Path], entity: str | None) -> AsyncIterator[Gathered]:
    """Read the files as `mirror ingest` does, into a temporary mirror. Raises StoreError."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="mirror-verify-"))
    try:
        home = Home(data=folder, config=folder / "config.toml")
        with open_writer(home, Settings()) as writer:
            results = await Ingest(writer, Options(entity)).read(paths)
            await writer.publish()
        with store.opened(home) as reader:
            checks.lay_history(reader, home.history, ())
            yield Gathered(reader, results, _paths(reader))
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _paths(reader: Reader) -> dict[RunKey, list[Path]]:
    found: dict[RunKey, list[Path]] = {}
    for file in sorted(local.files(reader).values(), key=lambda one: order(one.started_at)):
        if file.note is None:
            found.setdefault((ProjectKey(file.entity, file.project), file.run_id), []).append(Path(file.path))
    return found
