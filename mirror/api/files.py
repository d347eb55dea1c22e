"""Files of a run. Their list and their content come from the mirror if `sync.files` mirrors them, else the server."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from msgspec import Struct

from mirror.api.fields import camel
from mirror.api.lists import WholeList
from mirror.api.official import call_server
from mirror.api.session import Session
from mirror.errors import ArgumentError, CommError, StoreError
from mirror.protocol import METADATA
from mirror.store.records import ProjectKey

if TYPE_CHECKING:
    from mirror.snapshot.files import Content
    from mirror.snapshot.snapshot import Address

__all__ = ["File", "Files"]

_ADDRESSES = ("url", "directUrl")
"""Fields of a file that only the server has."""

Mirrored = Callable[[Sequence[str], str | None], list[dict[str, Any]] | None]
"""Returns the mirrored list of the files with these names or this pattern; None if the list is not mirrored."""


class FileSource(Struct, frozen=True):
    """Where the files of a run come from."""

    session: Session
    address: Address
    official: Callable[[], Any]
    """Returns the official client's run object. Raises CommError and MissingPackage."""
    pull_run: Callable[[], None]
    """Pulls the run into the mirror, after a write to the server."""
    content: Callable[[str], Content | None] = lambda _: None
    """Returns where the mirrored content of the file with this name is."""
    run: Any = None
    """The run; None for files of an artifact."""

    def on_server(self, names: Sequence[str], pattern: str | None = None, per_page: int = 50) -> list[dict[str, Any]]:
        """Return the server's records of the files with these names or this pattern. Raises CommError."""
        from mirror.remote.run_files import listed

        project = ProjectKey(self.address.entity, self.address.project)
        run_id = self.address.run_id
        return self.session.ask(lambda server: listed(server, project, run_id, names, pattern, per_page))


def listed(names: Sequence[str] | str | None) -> list[str]:
    """Return the names as a list; one name may be given alone, as a server takes it."""
    return [names] if isinstance(names, str) else list(names or ())


def target_in(root: str | os.PathLike[str], name: str) -> Path:
    """Return where a file of this name is in the folder `root`. Raises ArgumentError if it leads out of it."""
    folder = Path(root).resolve()
    if "\0" in name:
        raise ArgumentError(f"{name!r} is not a possible file name; it was not downloaded")
    target = (folder / name).resolve()
    if not target.is_relative_to(folder) or target == folder:
        raise ArgumentError(f"{name!r} leads out of {root}; it was not downloaded")
    return target


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write to; what is there at the end replaces it. Raises OSError."""
    # A short name: that of the file may be as long as names can be.
    scratch = target.with_name(f".{uuid.uuid4().hex}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield scratch
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


class File:
    """One file of a run."""

    def __init__(self, source: FileSource, node: dict[str, Any]) -> None:
        """Use `Run.files` or `Run.file` to get one."""
        self._from = source
        self._node = node

    @property
    def run(self) -> Any:
        """The run that it belongs to; None for a file of an artifact."""
        return self._from.run

    @property
    def id(self) -> str:
        """The server's own id of the file."""
        return str(self._node["id"])

    @property
    def name(self) -> str:
        """The name, including folders within the run."""
        return str(self._node["name"])

    @property
    def size(self) -> int:
        """The size in bytes."""
        return int(self._node["sizeBytes"] or 0)

    @property
    def mimetype(self) -> str | None:
        """The MIME type of its content."""
        kind: str | None = self._node["mimetype"]
        return kind

    @property
    def md5(self) -> str | None:
        """Its MD5 digest in Base64."""
        digest: str | None = self._node["md5"]
        return digest

    @property
    def updated_at(self) -> str | None:
        """When it was last uploaded: ISO 8601, UTC."""
        time: str | None = self._node["updatedAt"]
        return time

    @property
    def url(self) -> str:
        """Its address on the server, which requires the API key. Raises CommError."""
        return str(self._addresses["url"])

    @property
    def direct_url(self) -> str | None:
        """Its signed address in the object store, valid for a limited time. Raises CommError."""
        address: str | None = self._addresses["directUrl"]
        return address

    @property
    def _addresses(self) -> dict[str, Any]:
        """The record with both addresses, which only the server has; asked for when they are first needed."""
        if "url" not in self._node:
            found = self._from.on_server([self.name])
            if not found:
                raise CommError(f"{self._from.address} no longer has a file {self.name}", LookupError(self.name))
            self._node = found[0]
        return self._node

    def read(self) -> bytes:
        """Return its content, from the mirror or from the server.

        Raises CommError, also for a very large file that is not mirrored; use `download` for those.
        """
        if (mirrored := self.local_path) is not None:
            with suppress(FileNotFoundError):
                return mirrored.read_bytes()
        return self._from.session.ask(lambda server: server.download(self._source))

    @property
    def local_path(self) -> Path | None:
        """The mirrored content, a read-only file without an extension; None if only the server has it."""
        mirrored = self._from.content(self.name)
        return None if mirrored is None else self._from.session.local(mirrored.path)

    @property
    def _source(self) -> str:
        """The signed address, which needs no API key, else the address on the server."""
        return self.direct_url or self.url

    def download(
        self,
        root: str = ".",
        replace: bool = False,
        exist_ok: bool = False,
        api: Any = None,  # noqa: ARG002
    ) -> TextIO:
        """Copy it from the mirror, or download it, into the folder `root` and open it for reading.

        An existing file is overwritten with `replace`, opened as it is with `exist_ok`, else refused. `api` is only
        accepted for compatibility with the official client. Raises ArgumentError for an existing file and for a name
        that leads out of `root`, CommError, and StoreError.
        """
        target = target_in(root, self.name)
        try:
            # The name of the opened file is relative if `root` is, as in the official client.
            shown = Path(root, self.name)
            if target.exists() and not replace:
                if exist_ok:
                    return shown.open(encoding="utf-8")
                raise ArgumentError(f"{target} exists; use replace=True to overwrite it, or exist_ok=True to keep it")
            with written(target) as scratch:
                self._copy_to(scratch)
            return shown.open(encoding="utf-8")
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error.strerror or error}") from error

    def _copy_to(self, target: Path) -> None:
        if (mirrored := self.local_path) is not None:
            with suppress(FileNotFoundError):
                shutil.copyfile(mirrored, target)
                return
        self._from.session.ask(lambda server: server.download_to(self._source, target))

    def delete(self) -> None:
        """Delete it on the server, then from the mirror's list. Raises CommError and MissingPackage."""
        official = self._from.official()
        call_server(lambda: official.file(self.name).delete())
        self._from.pull_run()

    @property
    def path_uri(self) -> str:
        """Its address in a team's own storage bucket; the official client asks the server."""
        official = self._from.official()
        uri: str = call_server(lambda: official.file(self.name).path_uri)
        return uri

    def __getattr__(self, name: str) -> Any:
        # The server's own spelling of a name, such as `sizeBytes`, and any other field that it returned.
        if not name.startswith("_"):
            field = camel(name)
            if field in self._node or field in _ADDRESSES:
                return (self._addresses if field in _ADDRESSES else self._node)[field]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<File {self.name} ({self.mimetype}) {self.size:,} bytes>"


class Files(WholeList[File]):
    """Files of a run, listed once, when they are first used: from the mirror, else from the server."""

    def __init__(
        self,
        run: Any,
        source: FileSource,
        mirrored: Mirrored,
        names: Sequence[str],
        pattern: str | None,
        per_page: int,
    ) -> None:
        if names and pattern:
            raise ArgumentError("give names or a pattern, not both")
        self.run = run
        self._from = source
        self._mirrored = mirrored
        self._query = (list(names), pattern, per_page)
        self._found: list[File] | None = None

    def _all(self) -> list[File]:
        if self._found is None:
            names, pattern, per_page = self._query
            nodes = self._mirrored(names, pattern)
            if nodes is None:
                nodes = self._from.on_server(names, pattern, per_page)
            self._found = [File(self._from, node) for node in nodes]
        return self._found

    def __repr__(self) -> str:
        return f"<Files {'/'.join(self.run.path)} ({len(self)})>"


def metadata(find: Callable[[list[str]], Files]) -> dict[str, Any] | None:
    """Download `wandb-metadata.json` from the files that `find` finds by their names, and return its content.

    Returns None for a run without it. Raises CommError.
    """
    found = find([METADATA])
    if not len(found):
        return None
    try:
        value = json.loads(found[0].read())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
