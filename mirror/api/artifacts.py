"""One mirrored version of an artifact."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.api.artifact_entries import ArtifactEntry, ArtifactManifest, EntrySource, cleared, compared
from mirror.api.artifact_facts import ArtifactFacts
from mirror.api.artifact_files import ArtifactFiles
from mirror.api.client import Client
from mirror.api.editable import changed, editable
from mirror.api.files import listed, target_in
from mirror.api.official import call_server, official_method
from mirror.errors import ArgumentError
from mirror.snapshot import artifact_versions
from mirror.snapshot.artifact_versions import Entry, Version
from mirror.wandb_json import loads

if TYPE_CHECKING:
    from mirror.snapshot.snapshot import Snapshot

__all__ = ["Artifact"]


class Artifact(ArtifactFacts):
    """A mirrored version, with the interface of the official client's `Artifact`.

    Reading needs no network, except for files whose content is not mirrored and for references. `save` sends changes of
    `description`, `metadata`, `aliases`, `tags` and `ttl` to the server, then pulls them into the mirror.
    """

    def __init__(self, api: Client, snapshot: Snapshot, version: Version, name: str | None = None) -> None:
        """Use `Api.artifact` to get one; `name` is how it was asked for, such as `model:best`."""
        super().__init__(api, snapshot, version, name)
        self._current = self._as_mirrored()

    description = editable("description", "The description.")
    metadata = editable("metadata", "The metadata; a change of the dictionary is sent by `save`.")
    aliases = editable("aliases", "The aliases without the version; a change of the list is sent by `save`.")
    tags = editable("tags", "The tags; the server is asked if they are not mirrored.")
    ttl = editable(
        "ttl", "How long the server keeps it after its creation, a timedelta; None without a limit of its own."
    )

    # Files

    @cached_property
    def manifest(self) -> ArtifactManifest:
        """The files by path; the server is asked if they are not mirrored. Raises CommError and MissingPackage."""
        entries = self._entries()
        if entries is None:
            found: ArtifactManifest = self._entry_source.ask_official(lambda official: official.manifest)
            return found
        return ArtifactManifest(self._entry_source, entries)

    def get_entry(self, name: str | os.PathLike[str]) -> ArtifactEntry:
        """Return the file with this path. Raises KeyError."""
        path = Path(name).as_posix()
        found = self.manifest.entries.get(path)
        if found is None:
            # An object such as a table is named without the ending of its file.
            found = next((self.manifest.entries[f"{path}.{end}"] for end in self._endings(path)), None)
        if found is None:
            raise KeyError(f"Path not contained in artifact: {path}")
        return found

    get_path = get_entry

    def _endings(self, path: str) -> list[str]:
        names = [entry[len(path) + 1 :] for entry in self.manifest.entries if entry.startswith(f"{path}.")]
        return [name for name in names if name.count(".") == 1 and name.endswith(".json")]

    def files(self, names: list[str] | None = None, per_page: int = 50, start: str | None = None) -> Any:
        """Return its files: all, or those with these names. A page of the server starts at `start`."""
        entries = self._entries(listed(names))
        if entries is None or start is not None:
            return call_server(lambda: self._official.files(names, per_page, start))
        return ArtifactFiles(self._entry_source, entries)

    def download(
        self,
        root: str | os.PathLike[str] | None = None,
        allow_missing_references: bool = False,
        skip_cache: bool | None = None,
        path_prefix: str | os.PathLike[str] | None = None,
        multipart: bool | None = None,
    ) -> str:
        """Write its files into the folder `root`, and return it; by default `artifacts/NAME:VERSION` as it was logged.

        What is mirrored is copied, the rest comes from the server; files that are there with this content are left.
        With `allow_missing_references`, references that cannot be read are left out with a warning. `skip_cache` and
        `multipart` are for what only the official client can read. Raises CommError, ArgumentError and StoreError.
        """
        folder = self.download_root(root)
        entries = self._entries()
        if entries is None:
            given = (allow_missing_references, skip_cache, path_prefix, multipart)
            self._entry_source.ask_official(lambda official: official.download(folder, *given))
            return folder
        prefix = str(path_prefix or "")
        wanted = [entry for entry in entries if entry.path.startswith(prefix)]
        self._entry_source.download(wanted, folder, allow_missing_references=allow_missing_references)
        return folder

    def checkout(self, root: str | None = None) -> str:
        """Make the folder `root` equal to the artifact: as `download`, and other files are removed from it."""
        folder = root or self._default_root(self.source_name.split(":")[0])
        cleared(folder, self.manifest.entries)
        return self.download(folder)

    def verify(self, root: str | None = None) -> None:
        """Compare the files of a folder with the manifest; references are left out. Raises ValueError."""
        references = compared(self.download_root(root), self.manifest.entries, self.name)
        if references:
            warnings.warn(f"skipped verification of {references} refs", stacklevel=2)

    def file(self, root: str | None = None) -> str:
        """Write its only file into the folder `root`, and return its path.

        Raises ValueError if it has several, and IndexError if it has none.
        """
        if len(self.manifest) > 1:
            raise ArgumentError(
                "This artifact contains more than one file, call `.download()` to get "
                'all files or call .get_entry("filename").download()'
            )
        entry: ArtifactEntry | None = next(iter(self.manifest.entries.values()), None)
        if entry is None:
            raise IndexError(f"{self.name} has no files")
        return entry.download(root or os.path.join(".", "artifacts", self.name))  # noqa: PTH118

    def download_root(self, root: str | os.PathLike[str] | None) -> str:
        """Return the folder to write to: the given one, else the default."""
        return str(root) if root else self._default_root(self.source_name)

    def _default_root(self, name: str) -> str:
        folder = Path(os.environ.get("WANDB_ARTIFACT_DIR") or Path("artifacts")).absolute()
        return str(target_in(folder, name))

    # Writing

    def save(self, project: str | None = None, settings: Any = None) -> None:  # noqa: ARG002
        """Send what was changed to the server, then pull it into the mirror. Raises CommError and MissingPackage."""
        sent = changed(self, self._as_mirrored())
        if not sent:
            return
        self._api.session.pull_written([f"{self.entity}/{self.project}"])
        self._snapshot = self._api.newest()
        newer = artifact_versions.version(self._snapshot.cursor, self._held.key, self._held.name)
        self._held = newer or self._held
        # A pass may find a change of an older version only at the next complete listing.
        self._current = self._as_mirrored() | sent

    add = official_method("add")
    add_dir = official_method("add_dir")
    add_file = official_method("add_file")
    add_reference = official_method("add_reference")
    delete = official_method("delete")
    get = official_method("get")
    __getitem__ = get
    get_added_local_path_name = official_method("get_added_local_path_name")
    json_encode = official_method("json_encode")
    link = official_method("link")
    new_draft = official_method("new_draft")
    new_file = official_method("new_file")
    remove = official_method("remove")
    unlink = official_method("unlink")

    def finalize(self) -> None:
        """Return at once: it was made final when it was logged."""

    def is_draft(self) -> bool:
        """Return False: it was logged."""
        return False

    def wait(self, timeout: int | None = None) -> Artifact:  # noqa: ARG002
        """Return it at once: it was logged."""
        return self

    # Inner

    def _as_mirrored(self) -> dict[str, Any]:
        """Return the values of what can be edited, as mirrored; without `tags` if the mirror does not hold them."""
        held = self._held
        values: dict[str, Any] = {
            "description": held.description,
            "metadata": loads(held.metadata) if held.metadata else {},
            "aliases": list(held.aliases),
            "ttl": None if held.ttl_s is None else timedelta(seconds=held.ttl_s),
        }
        if "tags" in held.facts:
            values["tags"] = [tag["name"] for tag in held.facts["tags"] or ()]
        return values

    def _entries(self, names: Sequence[str] = ()) -> list[Entry] | None:
        return artifact_versions.entries(self._snapshot.cursor, self._held, names)

    @property
    def _entry_source(self) -> EntrySource:
        return EntrySource(self._api.session, self._snapshot, self._held, self, lambda: self._official)


def official_artifact(artifact: Any) -> Any:
    """Return the official client's artifact for a mirrored one; any other value unchanged."""
    return artifact._official if isinstance(artifact, Artifact) else artifact  # noqa: SLF001
