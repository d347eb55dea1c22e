"""Where a lake is stored: a folder, or a prefix of a bucket. A file appears there complete or not at all."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from mirror.errors import StoreError, UsageError
from mirror.settings.values import Impossible, lake_address
from mirror.store import files

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

_BUFFER = 8 << 20
_BLOCK = _BUFFER // 2
_ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
    "AZURITE_BLOB_STORAGE_URL",
)


class LakeTarget(Protocol):
    """Stores the files of a lake by their paths within it. Every method raises StoreError with a one-line message."""

    @property
    def name(self) -> str:
        """The folder or address, for messages."""
        ...

    @property
    def options(self) -> Mapping[str, str]:
        """What deltalake needs to know to open the tables, beside the environment."""
        ...

    def uri(self, relation: str) -> str:
        """The address of a table, for deltalake."""
        ...

    def size(self, path: str) -> int | None:
        """The size of a file; None if it does not exist."""
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

    def settle(self, *written: str) -> None:
        """Make all files that were put there, and those that others have `written`, durable before this returns."""
        ...

    def delete(self, path: str) -> None:
        """Delete a file if it exists."""
        ...


def find(text: str) -> LakeTarget:
    """The target for a folder, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.

    Keys, region and endpoint come from where the tools of these stores get them (AWS_ACCESS_KEY_ID, AWS_PROFILE,
    AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME, the role of the machine). Raises
    UsageError for anything else.
    """
    try:
        address = lake_address(text)
    except Impossible as error:
        raise UsageError(f"a lake {error}") from None
    if not address:
        raise UsageError("a lake must be a folder, s3://, gs:// or az://, not empty")
    if "://" not in address:
        return Folder(Path(address).expanduser().absolute())
    return Bucket(address)


class Folder(Struct):
    """A lake in a folder."""

    root: Path
    _folders: set[Path] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    @property
    def options(self) -> Mapping[str, str]:
        """None."""
        return {}

    def uri(self, relation: str) -> str:
        """The folder of the table."""
        return str(self.root / relation)

    def size(self, path: str) -> int | None:
        """The size of a file; None if it does not exist."""
        with failing(self.name):
            try:
                return (self.root / path).stat().st_size
            except FileNotFoundError:
                return None

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        with failing(self.name):
            try:
                return (self.root / path).read_bytes()
            except FileNotFoundError:
                return None

    def put(self, source: Path, path: str) -> None:
        """Copy a file durably, under a temporary name first."""
        target = self.root / path
        with failing(self.name), self._scratch(target) as scratch:
            shutil.copyfile(source, scratch)
            files.sync_file(scratch)
            scratch.replace(target)

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, replacing an older one."""
        target = self.root / path
        with failing(self.name), self._scratch(target) as scratch:
            scratch.write_bytes(content)
            files.sync_file(scratch)
            scratch.replace(target)
            files.sync_folder(self.root)

    def settle(self, *written: str) -> None:
        """Flush these files, and the folders of all files, to the disk, so that their names are durable."""
        with failing(self.name):
            for path in (self.root / name for name in written):
                if path.exists():
                    files.sync_file(path)
                    self._folders.add(path.parent)
            for folder in sorted(self._folders):
                files.sync_folder(folder)
            self._folders.clear()

    def delete(self, path: str) -> None:
        """Delete a file, and the folders that this leaves empty."""
        with failing(self.name):
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


class Bucket(Struct, dict=True):
    """A lake under a prefix of a bucket, reached by deltalake's own client. An object appears once it is complete."""

    name: str

    @property
    def options(self) -> Mapping[str, str]:
        """Allows an endpoint without TLS if the environment names one."""
        plain = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
        return {"allow_http": "true"} if plain else {}

    def uri(self, relation: str) -> str:
        """The address of the table."""
        return f"{self.name}/{relation}"

    @cached_property
    def _system(self) -> FileSystem:
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import PyFileSystem

        return PyFileSystem(DeltaStorageHandler(self.name, dict(self.options)))

    def size(self, path: str) -> int | None:
        """The size of an object; None if it does not exist."""
        from pyarrow.fs import FileType

        with failing(self.name):
            found = self._system.get_file_info(path)
            return found.size if found.type == FileType.File else None

    def read(self, path: str) -> bytes | None:
        """The content of an object; None if it does not exist."""
        with failing(self.name):
            if self.size(path) is None:
                return None
            with self._system.open_input_file(path) as stream:
                return bytes(stream.read())

    def put(self, source: Path, path: str) -> None:
        """Upload a file."""
        try:
            with failing(self.name), source.open("rb") as file, self._opened(path) as out:
                while block := file.read(_BLOCK):
                    out.write(block)
        except BaseException:
            # Closing the stream may have completed an object that is cut off.
            self.delete(path)
            raise

    def write(self, path: str, content: bytes) -> None:
        """Write a small object, replacing an older one."""
        with failing(self.name), self._opened(path) as out:
            out.write(content)

    def _opened(self, path: str) -> NativeFile:
        # Without a buffer, and for blocks as large as it, pyarrow passes what deltalake does not accept.
        return self._system.open_output_stream(path, compression=None, buffer_size=_BUFFER)

    def settle(self, *written: str) -> None:
        """Do nothing: an object is durable once it exists."""

    def delete(self, path: str) -> None:
        """Delete an object."""
        with failing(self.name):
            if self.size(path) is not None:
                self._system.delete_file(path)


_NO_CREDENTIALS = (
    ("s3://", "loading credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
    ("gs://", "token request", "set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account"),
    ("az://", "Account must be specified", "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
)
"""How deltalake's errors look if nothing says who is asking, by the beginning of the address, and what to do."""


@contextmanager
def failing(name: str, *passed: type[Exception]) -> Iterator[None]:
    """Turn errors of deltalake and of the system into one line; those of the classes `passed` are raised unchanged."""
    from deltalake.exceptions import DeltaError

    try:
        yield
    except passed:
        raise
    except (DeltaError, OSError, ValueError) as error:
        text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else _plain(str(error))
        for scheme, sign, advice in _NO_CREDENTIALS:
            if name.startswith(scheme) and sign in text:
                text = f"no credentials were found; {advice} (docs/scale.md)"
        raise StoreError(f"the lake {name} cannot be read or written: {text}") from error


def _plain(text: str) -> str:
    """One line without colours, and without the queries of addresses, which may hold a signature."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(" \u21b3 ", ": ")
    return " ".join(re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", text).split())
