"""Artifacts as they cross from the server's answers to the store."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class Collection(Struct, frozen=True):
    """A collection of versions. `mark` changes when the server's answer about it and its newest version does.

    `facts` has fields as the server returned them, as JSON text. `committed` is how many versions the server counts
    that are complete and not deleted, -1 if it was not asked.
    """

    collection_id: str
    type: str
    name: str
    kind: str | None
    description: str | None
    created_at: datetime | None
    mark: str
    facts: str | None = None
    committed: int = -1


class Version(Struct, frozen=True):
    """One version of a collection. `run` is the run that logged it: entity, project and run id, each None if unknown.

    `metadata` is JSON text, and so is `facts`, fields as the server returned them. `ttl_s` is None if the server keeps
    the version without limit.
    """

    number: int
    artifact_id: str
    digest: str | None
    size: int | None
    file_count: int | None
    state: str
    created_at: datetime | None
    updated_at: datetime | None
    run: tuple[str | None, str | None, str | None]
    description: str | None
    metadata: str | None
    ttl_s: int | None
    aliases: tuple[str, ...]
    facts: str | None = None


class Use(Struct, frozen=True):
    """An artifact that a run used ("input") or logged ("output"), in whatever project it is."""

    relation: str
    entity: str
    project: str
    type: str | None
    collection: str
    number: int
    artifact_id: str


class Pending(Struct, frozen=True):
    """A mirrored version whose files are not known yet. `path` is its name for people, as entity/project/name:v3.

    `file_count` is what the server counts.
    """

    aid: int
    artifact_id: str
    path: str
    attempts: int
    file_count: int = 0
