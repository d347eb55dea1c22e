"""Artifacts: collections of a project, their versions and aliases, and the content that versions share."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from mirror.sandbox import jsontext, manifests
from mirror.sandbox.clock import Clock
from mirror.sandbox.errors import Refused
from mirror.sandbox.manifests import Entry

LATEST = "latest"
Reference = str | tuple[str, int | None]


class Collection(Struct, eq=False):
    """The versions of one artifact, in order; each alias points to one of them.

    Those of a portfolio are links to versions of other collections, with numbers of their own.
    """

    entity: str
    project: str
    kind: str
    name: str
    number: int
    created_at: datetime
    updated_at: datetime | None = None
    description: str | None = None
    tags: list[str] = field(default_factory=list)
    versions: list[Artifact] = field(default_factory=list)
    aliases: dict[str, Artifact] = field(default_factory=dict)
    portfolio: bool = False
    linked_at: list[datetime] = field(default_factory=list)
    """When each version of a portfolio was linked."""

    @property
    def storage_id(self) -> str:
        """The id in the API."""
        return _id("ArtifactCollection", self.number)

    @property
    def latest(self) -> Artifact | None:
        """The newest version that is not deleted."""
        return next((version for version in reversed(self.versions) if version.state == "COMMITTED"), None)

    def find(self, alias: str) -> Artifact | None:
        """Return the version with this alias, or of this name, such as `v3`; None if it does not exist."""
        if alias in self.aliases:
            return self.aliases[alias]
        named = (version for number, version in enumerate(self.versions) if alias == f"v{number}")
        return next((version for version in named if version.state == "COMMITTED"), None)

    def aliases_of(self, artifact: Artifact) -> list[str]:
        """Return the aliases of a version, without its name."""
        return [alias for alias, version in self.aliases.items() if version is artifact]


class Artifact(Struct, eq=False):
    """A version of an artifact; it has a number from the moment that it is committed."""

    collection: Collection
    number: int
    digest: str
    created_at: datetime
    run_id: str | None = None
    """The storage id of the run that logged it."""
    description: str | None = None
    metadata: str | None = None
    ttl_seconds: int | None = None
    history_step: int | None = None
    client_id: str | None = None
    tags: list[str] = field(default_factory=list)
    asked_aliases: tuple[str, ...] = ()
    """The aliases that it gets when it is committed."""
    state: str = "PENDING"
    version: int | None = None
    updated_at: datetime | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    layout: str = "V2"
    manifest: bytes | None = None
    """The text of the manifest; without one, `currentManifest` is null."""
    base: Artifact | None = None
    """The version that an incremental manifest adds to."""

    @property
    def storage_id(self) -> str:
        """The id in the API."""
        return _id("Artifact", self.number)

    @property
    def key(self) -> str:
        """The id as hexadecimal digits, as in references between artifacts and in the addresses of content."""
        return base64.b64decode(self.storage_id).hex()

    @property
    def name(self) -> str | None:
        """The name of the version, such as `v3`."""
        return None if self.version is None else f"v{self.version}"

    @property
    def path(self) -> str:
        """`entity/project/collection:version`."""
        home = self.collection
        return f"{home.entity}/{home.project}/{home.name}:{self.name}"

    @property
    def aliases(self) -> list[str]:
        """The aliases that point to it, without the name of the version."""
        return self.collection.aliases_of(self)

    @property
    def size(self) -> int:
        """The bytes of all files and references."""
        return sum(entry.size or 0 for entry in self.entries.values())

    def reference(self, path: str) -> str:
        """Return the address under which another artifact can refer to a file of this one."""
        return f"wandb-artifact://{self.key}/{path}"


class Artifacts:
    """Every artifact of a server, and the content of their files."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.collections: dict[tuple[str, str], dict[str, Collection]] = {}
        """By project, then by name: two types cannot share a name."""
        self.contents: dict[str, bytes] = {}
        """Content by its address in the store."""
        self._by_id: dict[str, Artifact] = {}
        self._numbers = 1000

    # Reading

    def of_project(self, entity: str, project: str) -> dict[str, Collection]:
        """Return the collections of a project by name."""
        return self.collections.get((entity, project), {})

    def find(self, storage_id: str) -> Artifact | None:
        """Return the artifact with this id, or None."""
        return self._by_id.get(storage_id)

    def needed(self, storage_id: str) -> Artifact:
        """Return the artifact with this id. Raises Refused if there is none."""
        found = self._by_id.get(storage_id)
        if found is None:
            raise Refused(f"artifact not found: {storage_id}", 404)
        return found

    def by_client_id(self, client_id: str) -> Artifact | None:
        """Return the artifact to which a client gave this id, or None."""
        return next((artifact for artifact in self._by_id.values() if artifact.client_id == client_id), None)

    def collection(self, storage_id: str) -> Collection | None:
        """Return the collection with this id, or None."""
        every = (collection for known in self.collections.values() for collection in known.values())
        return next((collection for collection in every if collection.storage_id == storage_id), None)

    def content(self, artifact: Artifact, entry: Entry) -> bytes | None:
        """Return the content of a file; None for a reference, and for what the store has lost."""
        return None if entry.ref is not None else self.contents.get(address(artifact, entry))

    def replace(self, artifact: Artifact, path: str, content: bytes | None) -> None:
        """Replace the stored content of a file behind the manifest's back, or lose it (None)."""
        place = address(artifact, artifact.entries[path])
        if content is None:
            del self.contents[place]
        else:
            self.contents[place] = content

    # Writing

    def place(self, entity: str, project: str, kind: str, name: str, *, portfolio: bool = False) -> Collection:
        """Return the collection, created if it does not exist. Refuses a name that another type or kind has."""
        known = self.collections.setdefault((entity, project), {})
        found = known.get(name)
        if found is None:
            found = known[name] = Collection(
                entity, project, kind, name, self._number(), self.clock.moment(), portfolio=portfolio
            )
        elif (found.kind, found.portfolio) != (kind, portfolio):
            raise Refused(f'artifact collection "{name}" has type "{found.kind}", not "{kind}"', 400)
        return found

    def rename(self, collection: Collection, name: str) -> None:
        """Give a collection another name. Refuses one that the project has already."""
        known = self.collections[collection.entity, collection.project]
        if known.get(name, collection) is not collection:
            raise Refused(f'artifact collection "{name}" exists already', 409)
        del known[collection.name]
        collection.name = name
        known[name] = collection

    def start(self, collection: Collection, digest: str, **facts: Any) -> Artifact:
        """Create a version that waits to be committed."""
        artifact = Artifact(collection, self._number(), digest, self.clock.moment(), **facts)
        self._by_id[artifact.storage_id] = artifact
        return artifact

    def commit(self, artifact: Artifact) -> None:
        """Give the artifact its number and its aliases; a committed one stays as it is."""
        if artifact.state == "COMMITTED":
            return
        if artifact.manifest is not None and not artifact.entries:
            artifact.entries, artifact.layout = manifests.read(artifact.manifest)
            if artifact.base is not None:
                artifact.entries = artifact.base.entries | artifact.entries
                artifact.manifest = manifests.write(artifact.entries, artifact.layout)
        artifact.version = len(artifact.collection.versions)
        artifact.state = "COMMITTED"
        artifact.collection.versions.append(artifact)
        self.name(artifact, (*artifact.asked_aliases, LATEST))
        self.clock.changed()

    def name(self, artifact: Artifact, aliases: Sequence[str], collection: Collection | None = None) -> None:
        """Move these aliases to the artifact, in its own collection or in one that it is linked to."""
        for alias in aliases:
            (collection or artifact.collection).aliases[alias] = artifact
        self.clock.changed()

    def link(self, artifact: Artifact, portfolio: Collection, aliases: Sequence[str] = ()) -> int:
        """Link a version to a portfolio, and return its number there; a second time only moves the aliases."""
        if artifact not in portfolio.versions:
            portfolio.versions.append(artifact)
            portfolio.linked_at.append(self.clock.moment())
        self.name(artifact, (*aliases, LATEST), portfolio)
        return portfolio.versions.index(artifact)

    def places(self, artifact: Artifact) -> list[Collection]:
        """Return the collections that a version is in, its own first."""
        every = (collection for known in self.collections.values() for collection in known.values())
        links = (collection for collection in every if collection.portfolio and artifact in collection.versions)
        return [artifact.collection, *links]

    def delete(self, artifact: Artifact) -> None:
        """Delete a version: its number is not used again, and `latest` moves to the newest one that is left."""
        artifact.state = "DELETED"
        artifact.updated_at = self.clock.moment()
        for collection in self.places(artifact):
            collection.aliases = {alias: held for alias, held in collection.aliases.items() if held is not artifact}
            if collection.latest is not None:
                collection.aliases[LATEST] = collection.latest
        self.clock.changed()

    def add(
        self,
        collection: Collection,
        files: Mapping[str, bytes | str],
        references: Mapping[str, Reference],
        layout: str,
        **facts: Any,
    ) -> Artifact:
        """Create a version, ready to be committed; content that an earlier version has is not stored again."""
        artifact = self.start(collection, "", layout=layout, **facts)
        for path, given in files.items():
            content = given.encode() if isinstance(given, str) else given
            entry = Entry(path, manifests.md5(content), len(content), birth_id=artifact.storage_id)
            entry = next((old for old in self.stored(collection) if old.digest == entry.digest), entry)
            artifact.entries[path] = Entry(path, entry.digest, len(content), birth_id=entry.birth_id)
            self.contents[address(artifact, artifact.entries[path])] = content
        for path, place in references.items():
            ref, size = (place, None) if isinstance(place, str) else place
            artifact.entries[path] = Entry(path, ref, size, ref)
        artifact.digest = manifests.digest(artifact.entries)
        artifact.manifest = manifests.write(artifact.entries, layout)
        return artifact

    def stored(self, collection: Collection) -> Iterator[Entry]:
        """Yield the files whose content the committed versions of a collection hold."""
        for version in collection.versions:
            if version.state == "COMMITTED":
                yield from (entry for entry in version.entries.values() if entry.ref is None)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def address(artifact: Artifact, entry: Entry) -> str:
    """Return where the content of a file is stored: layout V1 has one place per entity, V2 one per artifact."""
    digest = base64.b64decode(entry.digest).hex()
    if artifact.layout == "V1":
        return f"{artifact.collection.entity}/{digest}"
    return f"{base64.b64decode(entry.birth_id or artifact.storage_id).hex()}/{digest}"


def metadata_text(metadata: Mapping[str, Any] | None) -> str | None:
    """Return the metadata as the server stores it."""
    return None if metadata is None else jsontext.write(metadata)


def _id(kind: str, number: int) -> str:
    return base64.b64encode(f"{kind}:{number}".encode()).decode()
