"""The files that joined and partitioned W&B Tables consist of: in the same artifact or run, or in another artifact."""

from __future__ import annotations

import binascii
import json
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct

from mirror.store.contents import ARTIFACT, FILE, OF_PIECES, SOURCE, TABLE
from mirror.store.database import Database

CLIENT_URL = "wandb-client-artifact://"
"""Before the id that a client gave to an artifact, in values of tables; a slash and the name of a file follow it."""

SERVER_URL = "wandb-artifact://"
"""Before the server's id of an artifact, in hexadecimal; a slash and the name of a file follow it."""


class Holder(NamedTuple):
    """What has files: a run (kind `file`, its rid) or a version of an artifact (kind `artifact`, its aid)."""

    kind: str
    owner: int


class Listed(Struct, frozen=True):
    """The file of a table that consists of others, which is here, and how its Parquet was made.

    `whole` is False if that is not there, although nothing was wrong.
    """

    holder: Holder
    name: str
    digest: str
    size: int
    made_by: int | None
    made_of: str | None
    whole: bool

    @property
    def source(self) -> str:
        """What names its Parquet."""
        return f"{self.holder.kind}/{self.holder.owner}/{self.name}"


class Entry(Struct, frozen=True):
    """A file that may be a table: its `reference` if another artifact has it, its digest if its content is here."""

    reference: str | None
    digest: str | None
    size: int


class Title(Struct, frozen=True):
    """The name of a holder for people, and the setting that mirrors its files."""

    name: str
    setting: str


class Plain(Struct, frozen=True):
    """A table that was converted: its columns, their names and types in Parquet, and that; or why there is none."""

    columns: tuple[str, ...]
    names: tuple[str, ...]
    types: tuple[str, ...]
    parquet: str | None
    error: str | None


def listed(db: Database) -> list[Listed]:
    """The joined and partitioned tables whose files are here."""
    rows = db.run(
        f"""
        SELECT n.kind, n.owner, n.name, n.digest, n.size, c.made_by, c.made_of,
               coalesce(c.error IS NOT NULL OR p.digest IS NOT NULL, false)
        FROM store.content_names AS n
        LEFT JOIN store.converted_tables AS c ON c.source = {SOURCE}
        LEFT JOIN store.content_names AS p ON p.kind = '{TABLE}' AND p.name = c.source
        WHERE n.kind <> '{TABLE}' AND n.digest IS NOT NULL AND {OF_PIECES} ORDER BY 1, 2, 3
        """
    )
    return [Listed(Holder(kind, owner), *more) for kind, owner, *more in rows]


def entries(db: Database, holders: Collection[Holder]) -> dict[Holder, dict[str, Entry]]:
    """The files of these that may be tables, by name in the order of their names."""
    rows = db.run(
        f"""
        SELECT '{ARTIFACT}', e.aid, e.path, e.reference, n.digest, coalesce(n.size, 0) FROM store.artifact_entries AS e
        LEFT JOIN store.content_names AS n ON n.kind = '{ARTIFACT}' AND n.owner = e.aid AND n.name = e.path
        WHERE e.aid IN (SELECT unnest(?::BIGINT[])) AND e.path GLOB '*table.json'
        UNION ALL
        SELECT '{FILE}', f.rid, f.name, NULL, n.digest, coalesce(n.size, 0) FROM store.run_files AS f
        LEFT JOIN store.content_names AS n ON n.kind = '{FILE}' AND n.owner = f.rid AND n.name = f.name
        WHERE f.rid IN (SELECT unnest(?::BIGINT[])) AND f.name GLOB '*table.json'
        ORDER BY 3
        """,
        [_owners(holders, ARTIFACT), _owners(holders, FILE)],
    )
    found: dict[Holder, dict[str, Entry]] = {holder: {} for holder in holders}
    for kind, owner, name, *entry in rows:
        found[Holder(kind, owner)][name] = Entry(*entry)
    return found


def titles(db: Database, holders: Collection[Holder]) -> dict[Holder, Title]:
    """What these are called."""
    artifacts = db.run(
        "SELECT aid, entity || '/' || project || '/' || collection || ':v' || version_number, "
        "coalesce(type, '*') || '/' || collection || ':v' || version_number FROM store.artifact_records "
        "WHERE aid IN (SELECT unnest(?::BIGINT[]))",
        [_owners(holders, ARTIFACT)],
    )
    runs = db.run(
        "SELECT rid, entity || '/' || project || '/' || run_id FROM store.run_records "
        "WHERE rid IN (SELECT unnest(?::BIGINT[]))",
        [_owners(holders, FILE)],
    )
    return {
        Holder(ARTIFACT, aid): Title(name, f"sync.artifacts = {json.dumps([selected], ensure_ascii=False)}")
        for aid, name, selected in artifacts
    } | {Holder(FILE, rid): Title(name, 'sync.files = ["*table.json"]') for rid, name in runs}


def _owners(holders: Iterable[Holder], kind: str) -> list[int]:
    return [holder.owner for holder in holders if holder.kind == kind]


def artifacts_at(db: Database, address: str) -> list[Holder]:
    """The mirrored versions of the artifact that an address names by its id; none if it is not mirrored."""
    scheme, _, rest = address.partition("://")
    name = rest.split("/", 1)[0]
    if f"{scheme}://" == CLIENT_URL:
        rows = db.run(
            "SELECT a.aid FROM store.artifact_records AS a JOIN store.artifact_clients AS c USING (artifact_id) "
            "WHERE c.client_id = ? ORDER BY 1",
            [name],
        )
    else:
        try:
            artifact_id = b64encode(binascii.unhexlify(name)).decode()
        except ValueError:
            return []
        rows = db.run("SELECT aid FROM store.artifact_records WHERE artifact_id = ? ORDER BY 1", [artifact_id])
    return [Holder(ARTIFACT, aid) for (aid,) in rows]


def plain(db: Database, digests: Iterable[str]) -> Mapping[str, Plain]:
    """What became of the files of plain tables with these digests."""
    rows = db.run(
        f"""
        SELECT c.source, c.columns, c.names, c.types, p.digest, c.error FROM store.converted_tables AS c
        LEFT JOIN store.content_names AS p ON p.kind = '{TABLE}' AND p.name = c.source
        WHERE c.source IN (SELECT unnest(?::VARCHAR[]))
        """,
        [list(digests)],
    )
    return {
        source: Plain(_texts(columns), _texts(names), _texts(types), parquet, error)
        for source, columns, names, types, parquet, error in rows
    }


def _texts(listed_as_json: str | None) -> tuple[str, ...]:
    return tuple(json.loads(listed_as_json or "[]"))
