"""The files of an artifact: copied from the mirror, or downloaded from the server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.api.files import target_in, written
from mirror.api.official import call_server
from mirror.api.session import Session
from mirror.errors import ArgumentError, CommError, MirrorError, MissingPackage, StoreError
from mirror.snapshot import artifact_versions
from mirror.snapshot.artifact_versions import Entry, Version

if TYPE_CHECKING:
    from mirror.remote.client import Server
    from mirror.snapshot.snapshot import Snapshot

__all__ = ["ArtifactEntry", "ArtifactManifest"]

DOWNLOADS = 8
"""How many files are downloaded at a time."""

NAMES = 500
"""Of how many files the addresses are asked for at a time."""

_SCHEME = "wandb-artifact://"
_CHUNK = 1 << 20


class EntrySource(Struct, frozen=True):
    """Where the files of a mirrored version come from."""

    session: Session
    snapshot: Snapshot
    version: Version
    artifact: Any
    official: Callable[[], Any]
    """Returns the official client's artifact. Raises CommError and MissingPackage."""

    def download(
        self, entries: Iterable[Entry], root: str | os.PathLike[str], *, allow_missing_references: bool = False
    ) -> None:
        """Write these files into the folder `root`; those that are there already are left as they are.

        Raises ArgumentError for a path that leads out of it, CommError, and StoreError.
        """
        wanted = list(entries)
        targets = {entry.path: target_in(root, entry.path) for entry in wanted}
        missing: dict[str, Entry] = {}
        for entry in wanted:
            target = targets[entry.path]
            try:
                if entry.reference is not None:
                    self._follow(entry, target, root, allowed=allow_missing_references)
                elif not _is_there(entry, target) and not self._copied(entry, target):
                    missing[entry.path] = entry
            except OSError as error:
                raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
        if missing:
            self.session.ask(lambda server: self._fetch(server, missing, targets))

    def _follow(self, entry: Entry, target: Path, root: str | os.PathLike[str], *, allowed: bool) -> None:
        """Write what a reference refers to: a file of a mirrored artifact, else as the official client finds it."""
        found = self._referenced(str(entry.reference))
        if found is not None and (_is_there(found, target) or self._copied(found, target)):
            return
        try:
            self.ask_official(lambda official: official.get_entry(entry.path).download(str(root)))
        except (CommError, MissingPackage, OSError) as error:
            reason = f"{self.version} refers to {entry.reference}, which cannot be read: {error}"
            if isinstance(error, MissingPackage) and not allowed:
                raise
            if not allowed:
                raise CommError(reason, error) from error
            warnings.warn(reason, stacklevel=6)

    def ask_official(self, work: Callable[[Any], Any]) -> Any:
        """Return the result of `work` with the official client's artifact; a ValueError becomes a CommError, too."""
        try:
            return call_server(lambda: work(self.official()))
        except MirrorError:
            raise
        except ValueError as error:
            raise CommError(f"{self.version}: {error}", error) from error

    def _referenced(self, reference: str) -> Entry | None:
        """Return the file of a mirrored artifact that a reference names, with its content; None for any other."""
        key, _, path = reference.removeprefix(_SCHEME).partition("/")
        if not reference.startswith(_SCHEME):
            return None
        try:
            artifact_id = base64.b64encode(bytes.fromhex(key)).decode()
        except ValueError:
            return None
        other = artifact_versions.by_id(self.snapshot.cursor, artifact_id)
        found = artifact_versions.entries(self.snapshot.cursor, other, [path]) if other is not None else None
        return found[0] if found and self.held(found[0]) is not None else None

    def held(self, entry: Entry) -> Path | None:
        """Return where the mirrored content of an entry can be read; None if it is not mirrored."""
        return self.session.local(entry.local_path)

    def _copied(self, entry: Entry, target: Path) -> bool:
        """Copy the mirrored content to `target`; return False if it is not mirrored. Raises OSError."""
        held = self.held(entry)
        if held is None:
            return False
        try:
            with written(target) as scratch:
                shutil.copyfile(held, scratch)
        except FileNotFoundError:
            # Content that nothing names any more may be deleted at any time.
            if held.exists():
                raise
            return False
        return True

    async def _fetch(self, server: Server, missing: Mapping[str, Entry], targets: Mapping[str, Path]) -> None:
        from mirror.remote.artifacts import addresses
        from mirror.remote.errors import AddressRefused

        async def addressed(names: Sequence[str]) -> dict[str, str]:
            found = await addresses(server, {self.version.artifact_id: names})
            urls = {name: address.url for (_, name), address in found.items()}
            if lost := [name for name in names if name not in urls]:
                raise CommError(f"{self.version} has no {lost[0]} on the server any more", LookupError(lost[0]))
            return urls

        async def one(entry: Entry, url: str) -> None:
            async with slots:
                try:
                    await self._fetch_one(server, entry, url, targets[entry.path])
                except AddressRefused:
                    # It may have expired while the file waited for its turn.
                    again = await addressed([entry.path])
                    await self._fetch_one(server, entry, again[entry.path], targets[entry.path])

        slots = asyncio.Semaphore(DOWNLOADS)
        names = list(missing)
        for start in range(0, len(names), NAMES):
            urls = await addressed(names[start : start + NAMES])
            await asyncio.gather(*(one(missing[name], url) for name, url in urls.items()))

    async def _fetch_one(self, server: Server, entry: Entry, url: str, target: Path) -> None:
        try:
            with written(target) as scratch:
                await server.download_to(url, scratch)
                if _checkable(entry) and not _is_there(entry, scratch):
                    raise CommError(f"{self.version}: {entry.path} arrived with another content than listed")
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error.strerror or error}") from error


def _checkable(entry: Entry) -> bool:
    """Return True if the digest of the entry is the MD5 of its content."""
    return entry.md5 is not None and entry.extra.get("alg") in (None, "MD5")


def _is_there(entry: Entry, target: Path) -> bool:
    """Return True if a file with the entry's content is there already."""
    if not _checkable(entry) or not target.is_file():
        return False
    hasher = hashlib.md5(usedforsecurity=False)
    with target.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return base64.b64encode(hasher.digest()).decode() == entry.md5


class ArtifactEntry:
    """A file of an artifact, or a reference to one elsewhere."""

    def __init__(self, source: EntrySource, entry: Entry) -> None:
        """Use `Artifact.get_entry` to get one."""
        self._from = source
        self._entry = entry

    @property
    def path(self) -> str:
        """Its path within the artifact."""
        return self._entry.path

    name = path
    skip_cache = False

    @property
    def digest(self) -> str | None:
        """The MD5 of its content in Base64; of a reference its ETag or address."""
        return self._entry.md5

    @property
    def size(self) -> int | None:
        """Its size in bytes."""
        return self._entry.size

    @property
    def ref(self) -> str | None:
        """The address that a reference refers to; None for a file."""
        return self._entry.reference

    @property
    def birth_artifact_id(self) -> str | None:
        """The id of the version with which its content was uploaded."""
        return self._entry.birth_id

    @property
    def extra(self) -> dict[str, Any]:
        """What the manifest has beside."""
        return self._entry.extra

    @property
    def local_path(self) -> str | None:
        """The mirrored content, a read-only file without an extension; None if only the server has it."""
        held = self._from.held(self._entry)
        return None if held is None else str(held)

    def parent_artifact(self) -> Any:
        """Return the artifact that it belongs to."""
        return self._from.artifact

    def download(
        self,
        root: str | os.PathLike[str] | None = None,
        skip_cache: bool | None = None,  # noqa: ARG002
        executor: Any = None,  # noqa: ARG002
    ) -> str:
        """Write it into the folder `root` and return its path there; as `Artifact.download`."""
        folder = self._from.artifact.download_root(root)
        self._from.download([self._entry], folder)
        return os.path.join(folder, self.path)  # noqa: PTH118 - as the official client returns it

    def is_at(self, path: Path) -> bool:
        """Return True if the file at this path has its content."""
        return _is_there(self._entry, path)

    def ref_target(self) -> str:
        """Return the address that a reference refers to. Raises ValueError for a file."""
        if self.ref is None:
            raise ArgumentError("Only reference entries support ref_target().")
        return self.ref

    def ref_url(self) -> str:
        """Return the address under which another artifact can refer to it."""
        return f"{_SCHEME}{base64.b64decode(self._from.version.artifact_id).hex()}/{self.path}"

    def to_json(self) -> dict[str, Any]:
        """Return it as the official client does."""
        shown = {
            "path": self.path,
            "digest": self.digest,
            "ref": self.ref,
            "birthArtifactID": self.birth_artifact_id,
            "size": self.size,
            "extra": self.extra,
            "skip_cache": False,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def __repr__(self) -> str:
        return f"<ArtifactEntry {self.path} ({self.size or 0:,} bytes)>"


class ArtifactManifest:
    """The files of an artifact by path."""

    manifest_version = 1

    def __init__(self, source: EntrySource, entries: Sequence[Entry]) -> None:
        """Use `Artifact.manifest` to get one."""
        self.entries = {entry.path: ArtifactEntry(source, entry) for entry in entries}

    def version(self) -> int:
        """Return the version of its format."""
        return self.manifest_version

    def get_entry_by_path(self, path: str) -> ArtifactEntry | None:
        """Return the file with this path; None if there is none."""
        return self.entries.get(path)

    def get_entries_in_directory(self, directory: str) -> list[ArtifactEntry]:
        """Return the files below a folder of the artifact."""
        return [entry for path, entry in self.entries.items() if path.startswith(f"{directory}/")]

    def size(self) -> int:
        """Return the bytes of all files and references."""
        return sum(entry.size or 0 for entry in self.entries.values())

    def digest(self) -> str:
        """Return the digest of the list: the MD5 over its sorted paths and their digests."""
        hasher = hashlib.md5(b"wandb-artifact-manifest-v1\n", usedforsecurity=False)
        for path, entry in sorted(self.entries.items()):
            hasher.update(f"{path}:{entry.digest}\n".encode())
        return hasher.hexdigest()

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<ArtifactManifest {len(self)} files>"


def _others(root: str, paths: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the files of a folder that are not among these paths."""
    for folder, _, names in os.walk(root):
        for name in names:
            file = Path(folder, name)
            if file.relative_to(root).as_posix() not in paths:
                yield file


def cleared(root: str, entries: Mapping[str, Any]) -> None:
    """Remove the files of a folder that are not in an artifact."""
    for file in list(_others(root, entries)):
        with suppress(FileNotFoundError):
            file.unlink()


def compared(root: str, entries: Mapping[str, ArtifactEntry], artifact: str) -> int:
    """Compare the files of a folder with an artifact; returns how many references were left out. Raises ValueError."""
    if (other := next(_others(root, entries), None)) is not None:
        raise ArgumentError(f"Found file {other} which is not a member of artifact {artifact}")
    files = [entry for entry in entries.values() if entry.ref is None]
    for entry in files:
        if not entry.is_at(target_in(root, entry.path)):
            raise ArgumentError(f"Digest mismatch for file: {entry.path}")
    return len(entries) - len(files)
