"""The files of a mirrored artifact as a list of `File`."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from mirror.api.artifact_entries import EntrySource
from mirror.api.files import File
from mirror.api.lists import WholeList
from mirror.api.official import call_server
from mirror.snapshot.artifact_versions import Entry
from mirror.snapshot.files import Content

__all__ = ["ArtifactFile", "ArtifactFiles"]


class _Source(Struct, frozen=True):
    """What a `File` needs, from a version of an artifact."""

    of: EntrySource
    entries: dict[str, Entry]
    run: None = None

    @property
    def session(self) -> Any:
        return self.of.session

    @property
    def address(self) -> str:
        return str(self.of.version)

    def content(self, name: str) -> Content | None:
        entry = self.entries[name]
        return None if entry.local_path is None else Content(entry.local_path, entry.size or 0, None)

    def on_server(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the records with the addresses that the server signed. Raises CommError."""
        from mirror.remote.artifacts import addresses

        version_id = self.of.version.artifact_id
        found = self.session.ask(lambda server: addresses(server, {version_id: names}))
        return [
            node(self.of, self.entries[name]) | {"url": address.url, "directUrl": address.url}
            for (_, name), address in found.items()
        ]

    def official(self) -> Any:
        return self.of.official()

    def pull_run(self) -> None:
        """Nothing: files of artifacts do not change."""


def node(source: EntrySource, entry: Entry) -> dict[str, Any]:
    """Return a file by the field names of the server's API, without addresses and the id, which only the server has."""
    return {
        "name": entry.path,
        "sizeBytes": entry.size,
        "mimetype": mimetypes.guess_type(entry.path)[0],
        "updatedAt": source.artifact.created_at,
        "md5": entry.md5 if entry.reference is None else None,
        "digest": entry.md5,
    }


class ArtifactFile(File):
    """One file of an artifact, or a reference."""

    @property
    def id(self) -> str:
        """The server's own id of the file. Raises CommError and MissingPackage."""
        return str(call_server(lambda: self._theirs.id))

    @property
    def digest(self) -> str | None:
        """The MD5 of its content in Base64; of a reference its ETag or address."""
        found: str | None = self._node["digest"]
        return found

    def delete(self) -> None:
        """Refused by the server, which deletes versions as a whole. Raises CommError and MissingPackage."""
        call_server(lambda: self._theirs).delete()

    @property
    def path_uri(self) -> str:
        """Its address in a team's own storage bucket; the official client asks the server."""
        return str(call_server(lambda: self._theirs.path_uri))

    @property
    def _theirs(self) -> Any:
        return self._from.official().files([self.name])[0]


class ArtifactFiles(WholeList[File]):
    """The files of an artifact by path."""

    def __init__(self, source: EntrySource, entries: Sequence[Entry]) -> None:
        self.artifact = source.artifact
        source_of_files: Any = _Source(source, {entry.path: entry for entry in entries})
        self._files: list[File] = [ArtifactFile(source_of_files, node(source, entry)) for entry in entries]

    def _all(self) -> list[File]:
        return self._files

    @property
    def path(self) -> list[str]:
        """Entity, project and name of the artifact."""
        return [self.artifact.entity, self.artifact.project, self.artifact.name]

    def __repr__(self) -> str:
        return f"<ArtifactFiles {'/'.join(self.path)} ({len(self)})>"
