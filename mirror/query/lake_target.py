"""Where a lake is stored: a folder, or a prefix of an S3 bucket. A file appears there complete or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from mirror.errors import StoreError, UsageError
from mirror.store import files

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_BLOCK = 8 << 20


class LakeTarget(Protocol):
    """Stores the files of a lake by their paths within it. Every method raises StoreError with a one-line message."""

    @property
    def name(self) -> str:
        """The folder or address, for messages."""
        ...

    def listing(self) -> dict[str, int]:
        """All files with their sizes."""
        ...

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        ...

    def put(self, source: Path, path: str) -> None:
        """Copy a local file to the lake, creating the folders above it."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, replacing an older one."""
        ...

    def settle(self) -> None:
        """Make all files that were put there durable before this returns."""
        ...

    def delete(self, path: str) -> None:
        """Delete a file if it exists."""
        ...


def find(text: str) -> LakeTarget:
    """The target for `DIR` or `s3://bucket/prefix`.

    For S3, key, region and endpoint come from where the AWS tools get them (AWS_ACCESS_KEY_ID, AWS_PROFILE,
    AWS_ENDPOINT_URL, the role of the machine), or from `?region=` and `?endpoint_override=` in the address. Raises
    UsageError for anything else.
    """
    if "://" not in text:
        return Folder(Path(text).expanduser().absolute())
    address = urlsplit(text)
    if address.scheme != "s3":
        raise UsageError(f"a lake must be a folder or s3://bucket/prefix, not {address.scheme}://")
    if "@" in address.netloc:
        raise UsageError("leave the key out of the address: it is read from AWS_ACCESS_KEY_ID or AWS_PROFILE")
    if not address.netloc:
        raise UsageError(f"{text} names no bucket: use s3://bucket/prefix")
    from pyarrow.fs import FileSystem

    with _failing(text):
        system, root = FileSystem.from_uri(text)
    return Bucket(system, root.rstrip("/"))


@dataclass
class Folder:
    """A lake in a folder."""

    root: Path
    _folders: set[Path] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    def listing(self) -> dict[str, int]:
        """All files with their sizes."""
        with _failing(self.name):
            return {str(p.relative_to(self.root)): p.stat().st_size for p in self.root.rglob("*") if p.is_file()}

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        with _failing(self.name):
            try:
                return (self.root / path).read_bytes()
            except FileNotFoundError:
                return None

    def put(self, source: Path, path: str) -> None:
        """Copy a file durably, under a temporary name first."""
        target = self.root / path
        with _failing(self.name), self._scratch(target) as scratch:
            shutil.copyfile(source, scratch)
            files.sync_file(scratch)
            scratch.replace(target)

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, replacing an older one."""
        target = self.root / path
        with _failing(self.name), self._scratch(target) as scratch:
            scratch.write_bytes(content)
            files.sync_file(scratch)
            scratch.replace(target)
            files.sync_folder(self.root)

    def settle(self) -> None:
        """Flush the folders of all files that were put there to the disk, so that their names are durable."""
        with _failing(self.name):
            for folder in sorted(self._folders):
                files.sync_folder(folder)
            self._folders.clear()

    def delete(self, path: str) -> None:
        """Delete a file, and the folders that this leaves empty."""
        with _failing(self.name):
            (self.root / path).unlink(missing_ok=True)
            for folder in (self.root / path).parents:
                if folder == self.root or any(folder.iterdir()):
                    return
                folder.rmdir()

    @contextmanager
    def _scratch(self, target: Path) -> Iterator[Path]:
        scratch = target.with_name(f"{target.name}.{uuid.uuid4().hex[:12]}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        above = target.parent
        while above != self.root.parent:
            self._folders.add(above)
            above = above.parent
        try:
            yield scratch
        finally:
            scratch.unlink(missing_ok=True)


@dataclass
class Bucket:
    """A lake under a prefix of a bucket. S3 shows an object only once it is complete."""

    system: FileSystem
    root: str

    @property
    def name(self) -> str:
        """The address."""
        return f"s3://{self.root}"

    def listing(self) -> dict[str, int]:
        """All objects with their sizes."""
        from pyarrow.fs import FileSelector, FileType

        with _failing(self.name):
            found = self.system.get_file_info(FileSelector(self.root, allow_not_found=True, recursive=True))
            return {info.path[len(self.root) + 1 :]: info.size for info in found if info.type == FileType.File}

    def read(self, path: str) -> bytes | None:
        """The content of an object; None if it does not exist."""
        with _failing(self.name):
            try:
                with self.system.open_input_stream(f"{self.root}/{path}", compression=None) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def put(self, source: Path, path: str) -> None:
        """Upload a file. What a failed upload leaves has another size, so the next export uploads it again."""
        with (
            _failing(self.name),
            source.open("rb") as file,
            self.system.open_output_stream(f"{self.root}/{path}", compression=None) as out,
        ):
            while block := file.read(_BLOCK):
                out.write(block)

    def write(self, path: str, content: bytes) -> None:
        """Write a small object, replacing an older one."""
        with _failing(self.name), self.system.open_output_stream(f"{self.root}/{path}", compression=None) as out:
            out.write(content)

    def settle(self) -> None:
        """Do nothing: an object is durable once it exists."""

    def delete(self, path: str) -> None:
        """Delete an object."""
        with _failing(self.name):
            try:
                self.system.delete_file(f"{self.root}/{path}")
            except FileNotFoundError:
                return


@contextmanager
def _failing(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else " ".join(str(error).split())
        raise StoreError(f"the lake {name} cannot be read or written: {text}") from error
