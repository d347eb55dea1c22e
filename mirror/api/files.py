"""Files of a run. Their content is only on the server, and so is their list unless `sync.files` mirrors it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, overload

from mirror.api.official import call_server
from mirror.errors import ArgumentError, CommError, StoreError
from mirror.protocol import METADATA
from mirror.store.records import ProjectKey

if TYPE_CHECKING:
    from mirror.api.run import Run
    from mirror.api.session import Session


Mirrored = Callable[[Sequence[str], str | None], list[dict[str, Any]] | None]
"""Returns the mirrored list of the files with these names or this pattern; None if the list is not mirrored."""


class File:
    """One file of a run."""

    def __init__(self, session: Session, run: Run, node: dict[str, Any]) -> None:
        """Use `Run.files` or `Run.file` to get one."""
        self._session = session
        self._run = run
        self._node = node

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
            found = _on_server(self._session, self._run, [self.name])
            if not found:
                raise CommError(f"{'/'.join(self._run.path)} no longer has a file {self.name}", LookupError(self.name))
            self._node = found[0]
        return self._node

    def read(self) -> bytes:
        """Return its content. Raises CommError, also for a very large file; use `download` for those."""
        return self._session.ask(lambda server: server.download(self._source))

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
        """Download it into the folder `root` and open it for reading.

        An existing file is overwritten with `replace`, opened as it is with `exist_ok`, else refused. `api` is only
        accepted for compatibility with the official client. Raises ArgumentError for an existing file and for a name
        that leads out of `root`, CommError, and StoreError.
        """
        folder = Path(root).resolve()
        target = (folder / self.name).resolve()
        if not target.is_relative_to(folder):
            raise ArgumentError(f"{self.name!r} leads out of {root}; it was not downloaded")
        if target.exists() and not replace:
            if exist_ok:
                return target.open(encoding="utf-8")
            raise ArgumentError(f"{target} exists; use replace=True to overwrite it, or exist_ok=True to keep it")
        scratch = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._session.ask(lambda server: server.download_to(self._source, scratch))
            scratch.replace(target)
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
        finally:
            scratch.unlink(missing_ok=True)
        return target.open(encoding="utf-8")

    def delete(self) -> None:
        """Delete it on the server, then from the mirror's list. Raises CommError and MissingPackage."""
        official = self._run._official  # noqa: SLF001
        call_server(lambda: official.file(self.name).delete())
        self._run._pull_written()  # noqa: SLF001

    @property
    def path_uri(self) -> str:
        """Its address in a team's own storage bucket; the official client asks the server."""
        official = self._run._official  # noqa: SLF001
        uri: str = call_server(lambda: official.file(self.name).path_uri)
        return uri

    def __repr__(self) -> str:
        return f"<File {self.name} ({self.mimetype}) {self.size:,} bytes>"


class Files(Sequence[File]):
    """Files of a run, listed once, when they are first used: from the mirror, else from the server."""

    def __init__(
        self, session: Session, run: Run, mirrored: Mirrored, names: Sequence[str], pattern: str | None, per_page: int
    ) -> None:
        if names and pattern:
            raise ArgumentError("give names or a pattern, not both")
        self.run = run
        self._session = session
        self._mirrored = mirrored
        self._query = (list(names), pattern, per_page)
        self._found: list[File] | None = None

    def _files(self) -> list[File]:
        if self._found is None:
            names, pattern, per_page = self._query
            nodes = self._mirrored(names, pattern)
            if nodes is None:
                nodes = _on_server(self._session, self.run, names, pattern, per_page)
            self._found = [File(self._session, self.run, node) for node in nodes]
        return self._found

    @overload
    def __getitem__(self, index: int) -> File: ...
    @overload
    def __getitem__(self, index: slice) -> list[File]: ...
    def __getitem__(self, index: int | slice) -> File | list[File]:
        return self._files()[index]

    def __len__(self) -> int:
        return len(self._files())

    def __iter__(self) -> Iterator[File]:
        return iter(self._files())

    @property
    def more(self) -> bool:
        """Always False: all pages are loaded at once."""
        return False

    def __repr__(self) -> str:
        return f"<Files {'/'.join(self.run.path)}>"


def _on_server(
    session: Session, run: Run, names: Sequence[str], pattern: str | None = None, per_page: int = 50
) -> list[dict[str, Any]]:
    from mirror.remote.run_files import listed

    project = ProjectKey(run.entity, run.project)
    return session.ask(lambda server: listed(server, project, run.id, names, pattern, per_page))


def metadata(run: Run) -> dict[str, Any] | None:
    """Download `wandb-metadata.json` and return its content; None for a run without it. Raises CommError."""
    found = run.files([METADATA], per_page=1)
    if not len(found):
        return None
    try:
        value = json.loads(found[0].read())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
