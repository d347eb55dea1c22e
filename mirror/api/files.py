"""Files of a run, which stay on the server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, overload

from mirror.errors import ArgumentError, StoreError
from mirror.store.records import ProjectKey

if TYPE_CHECKING:
    from mirror.api.run import Run
    from mirror.api.session import Session

METADATA = "wandb-metadata.json"


class File:
    """One file of a run."""

    def __init__(self, session: Session, node: dict[str, Any]) -> None:
        """Files come from `Run.files` and `Run.file`."""
        self._session = session
        self._node = node

    @property
    def id(self) -> str:
        """The server's own id of the file."""
        return str(self._node["id"])

    @property
    def name(self) -> str:
        """The name, folders within the run included."""
        return str(self._node["name"])

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self._node["sizeBytes"] or 0)

    @property
    def mimetype(self) -> str | None:
        """The type of its content."""
        kind: str | None = self._node["mimetype"]
        return kind

    @property
    def md5(self) -> str | None:
        """Base64 of its MD5 digest."""
        digest: str | None = self._node["md5"]
        return digest

    @property
    def updated_at(self) -> str | None:
        """When it was last uploaded: ISO 8601, UTC."""
        time: str | None = self._node["updatedAt"]
        return time

    @property
    def url(self) -> str:
        """Its address on the server, which wants the key."""
        return str(self._node["url"])

    @property
    def direct_url(self) -> str | None:
        """Its address in the object store, signed, for a while."""
        address: str | None = self._node["directUrl"]
        return address

    def read(self) -> bytes:
        """Its content. Raises CommError, also for a very large one, which `download` takes."""
        return self._session.ask(lambda server: server.download(self._source))

    @property
    def _source(self) -> str:
        """The signed address, which wants no key."""
        return self.direct_url or self.url

    def download(self, root: str = ".", replace: bool = False, exist_ok: bool = False) -> TextIO:
        """Store it under the folder `root` and open it for reading.

        A file that is there is replaced with `replace`, opened as it is with `exist_ok`, else refused. Raises
        ArgumentError for that and for a name that leads out of `root`, CommError, and StoreError.
        """
        folder = Path(root).resolve()
        target = (folder / self.name).resolve()
        if not target.is_relative_to(folder):
            raise ArgumentError(f"{self.name!r} leads out of {root}; it is not downloaded")
        if target.exists() and not replace:
            if exist_ok:
                return target.open(encoding="utf-8")
            raise ArgumentError(f"{target} exists; replace=True overwrites it, exist_ok=True leaves it as it is")
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

    def __repr__(self) -> str:
        return f"<File {self.name} ({self.mimetype}) {self.size:,} bytes>"


class Files(Sequence[File]):
    """Files of a run, asked for once, when they are first looked at."""

    def __init__(self, session: Session, run: Run, names: Sequence[str], pattern: str | None, per_page: int) -> None:
        if names and pattern:
            raise ArgumentError("names or a pattern, not both")
        self.run = run
        self._session = session
        self._asked = (list(names), pattern, per_page)
        self._found: list[File] | None = None

    def _files(self) -> list[File]:
        if self._found is None:
            from mirror.remote.run_files import listed

            names, pattern, per_page = self._asked
            project = ProjectKey(self.run.entity, self.run.project)
            nodes = self._session.ask(lambda server: listed(server, project, self.run.id, names, pattern, per_page))
            self._found = [File(self._session, node) for node in nodes]
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

    def __repr__(self) -> str:
        return f"<Files {'/'.join(self.run.path)}>"


def metadata(session: Session, run: Run) -> dict[str, Any] | None:
    """The content of `wandb-metadata.json`; None for a run without it. Raises CommError."""
    found = Files(session, run, [METADATA], None, 1)
    if not len(found):
        return None
    try:
        value = json.loads(found[0].read())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
