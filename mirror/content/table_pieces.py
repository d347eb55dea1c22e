"""Finds what a joined or partitioned W&B Table consists of, down to plain tables that are here as Parquet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any

from msgspec import Struct

from mirror.content.table_json import BadTable
from mirror.store import table_pieces
from mirror.store.blobs import Blobs
from mirror.store.database import Database
from mirror.store.table_pieces import CLIENT_URL, SERVER_URL, Entry, Holder, Listed, Plain, Title

AT_ONCE = 100
"""Tables that are looked at together."""

MOST_BYTES = 1 << 20
"""The largest file of a table that only names others."""

MOST_PIECES = 100_000
DEEPEST = 50

_ADDRESS = (CLIENT_URL, SERVER_URL)
_PLAIN = ".table.json"
_JOINED = ".joined-table.json"
_PARTITIONED = ".partitioned-table.json"
_SUFFIXES = ("", _PLAIN, _PARTITIONED, _JOINED)


class Leaf(Struct, frozen=True):
    """A plain table: its columns, their names and types in Parquet, and the digest of that."""

    path: str
    columns: tuple[str, ...]
    names: tuple[str, ...]
    types: tuple[str, ...]
    parquet: str


class Parts(Struct, frozen=True):
    """Tables one after the other."""

    path: str
    parts: tuple[Node, ...]


class Join(Struct, frozen=True):
    """Two tables, and the column of each by which they are joined."""

    path: str
    first: Node
    second: Node
    keys: tuple[str, str]


Node = Leaf | Parts | Join


class Found(Struct, frozen=True):
    """What a table consists of, or why that is not known; and a digest of either."""

    table: Listed
    pieces: Node | None
    error: str | None
    made_of: str


def outdated(db: Database, blobs: Blobs, made_by: int) -> list[Found]:
    """The joined and partitioned tables that are here and without Parquet that was made of what they consist of now."""
    found: list[Found] = []
    tables = table_pieces.listed(db)
    for start in range(0, len(tables), AT_ONCE):
        some = tables[start : start + AT_ONCE]
        look_up = _LookUp(db, blobs)
        look_up.load({table.holder for table in some})
        for table in some:
            one = _found(look_up, table)
            if not table.whole or (table.made_by, table.made_of) != (made_by, one.made_of):
                found.append(one)
    return found


def _found(look_up: _LookUp, table: Listed) -> Found:
    pieces, error = None, None
    look_up.pieces = 0
    try:
        pieces = look_up.node(table.holder, table.name, ())
    except BadTable as problem:
        error = str(problem)
    made_of = hashlib.sha256(repr((pieces, error)).encode("utf-8", "surrogatepass")).hexdigest()
    return Found(table, pieces, error, made_of)


class _LookUp:
    """Files of runs and artifacts, read when they are first needed."""

    def __init__(self, db: Database, blobs: Blobs) -> None:
        self.pieces = 0
        self._db = db
        self._blobs = blobs
        self._entries: dict[Holder, dict[str, Entry]] = {}
        self._titles: dict[Holder, Title] = {}
        self._plain: dict[str, Plain] = {}

    def load(self, holders: Collection[Holder]) -> None:
        """Read what there is about the files of these."""
        new = [holder for holder in holders if holder not in self._entries]
        if not new:
            return
        entries = table_pieces.entries(self._db, new)
        self._entries |= entries
        self._titles |= table_pieces.titles(self._db, new)
        self._plain |= table_pieces.plain(
            self._db, {entry.digest for files in entries.values() for entry in files.values() if entry.digest}
        )

    def node(self, holder: Holder, name: str, above: tuple[tuple[Holder, str], ...]) -> Node:
        """What the file `name` of `holder` is, a piece of those `above`. Raises BadTable."""
        self.load([holder])
        entry = self._entries[holder].get(name)
        if entry is None:
            raise BadTable(f"its piece {name} is not a file of {self._titles[holder].name}")
        if entry.reference is not None and entry.digest is None:
            return self._at(entry.reference, above)
        if (holder, name) in above:
            raise BadTable(f"it is a piece of itself: {' names '.join([one for _, one in above] + [name])}")
        self.pieces += 1
        if self.pieces > MOST_PIECES or len(above) > DEEPEST:
            raise BadTable(f"it has more than {MOST_PIECES:,} pieces, or they are nested deeper than {DEEPEST} tables")
        if entry.digest is None:
            title = self._titles[holder]
            raise BadTable(
                f"its piece {name} of {title.name} is not mirrored: set {title.setting} and run `mirror sync`"
            )
        if name.endswith(_PLAIN):
            return self._leaf(holder, name, entry.digest)
        here = (*above, (holder, name))
        document = self._document(name, entry)
        if name.endswith(_PARTITIONED):
            return Parts(name, tuple(self._parts(holder, _text(document, "parts_path", name), here)))
        first, second = (self._piece(holder, _text(document, member, name), here) for member in ("table1", "table2"))
        return Join(name, first, second, _keys(document, name))

    def _leaf(self, holder: Holder, name: str, digest: str) -> Leaf:
        plain = self._plain.get(digest)
        if plain is not None and plain.error is not None:
            raise BadTable(f"its piece {name} of {self._titles[holder].name} is {plain.error}")
        if plain is None or plain.parquet is None:
            raise BadTable(f"its piece {name} of {self._titles[holder].name} is not Parquet yet: run `mirror sync`")
        return Leaf(name, plain.columns, plain.names, plain.types, plain.parquet)

    def _piece(self, holder: Holder, name: str, above: tuple[tuple[Holder, str], ...]) -> Node:
        if name.startswith(_ADDRESS):
            return self._at(name, above)
        # Names of objects in artifacts may lack what the official client appends to them.
        full = next((name + end for end in _SUFFIXES if name + end in self._entries[holder]), name)
        return self.node(holder, full, above)

    def _at(self, address: str, above: tuple[tuple[Holder, str], ...]) -> Node:
        """The table at an address in another artifact."""
        if not address.startswith(_ADDRESS):
            raise BadTable(f"its piece {address} is outside of W&B, and references are not downloaded")
        name = address.partition("://")[2].partition("/")[2]
        holders = table_pieces.artifacts_at(self._db, address)
        self.load(holders)
        having = [holder for holder in holders if name in self._entries[holder]]
        here = [holder for holder in having if self._entries[holder][name].digest is not None]
        for holder in [*here, *having, *holders][:1]:
            return self.node(holder, name, above)
        raise BadTable(
            f"its piece {address} is in an artifact that is not mirrored: name that in sync.artifacts, and its project "
            "in projects, and run `mirror sync`"
        )

    def _parts(self, holder: Holder, folder: str, above: tuple[tuple[Holder, str], ...]) -> Iterator[Node]:
        """The tables in a folder, in the order of their names, as manifests list them."""
        start = folder.rstrip("/") + "/"
        names = [name for name in self._entries[holder] if name.startswith(start) and name.endswith(_SUFFIXES[1:])]
        if not names:
            raise BadTable(f"its folder {folder!r} of {self._titles[holder].name} has no tables")
        for name in names:
            yield self.node(holder, name, above)

    def _document(self, name: str, entry: Entry) -> dict[str, Any]:
        if entry.size > MOST_BYTES:
            raise BadTable(f"{name} is {_what(name)}: it has {entry.size:,} bytes")
        try:
            document = json.loads(self._blobs.path(str(entry.digest)).read_bytes())
        except OSError as error:
            raise BadTable(f"{name} is not here: {error.strerror}") from error
        except RecursionError:
            raise BadTable(f"{name} is {_what(name)}: it is nested too deep") from None
        except json.JSONDecodeError as error:
            raise BadTable(f"{name} is {_what(name)}: its JSON is broken at character {error.pos:,}") from None
        except ValueError:
            raise BadTable(f"{name} is {_what(name)}: it is not UTF-8 text") from None
        if not isinstance(document, dict):
            raise BadTable(f"{name} is {_what(name)}: it is not a JSON object")
        return document


def _what(name: str) -> str:
    return "not a partitioned table" if name.endswith(_PARTITIONED) else "not a joined table"


def _text(document: dict[str, Any], member: str, name: str) -> str:
    text = document.get(member)
    if not isinstance(text, str) or not text:
        raise BadTable(f"{name} is {_what(name)}: its member `{member}` is not a text")
    return text


def _keys(document: dict[str, Any], name: str) -> tuple[str, str]:
    """The columns to join by: one text for both, or a list of two."""
    keys = document.get("join_key")
    if isinstance(keys, str):
        return keys, keys
    if isinstance(keys, list) and len(keys) == 2 and all(isinstance(key, str) for key in keys):
        return keys[0], keys[1]
    raise BadTable(f"{name} is {_what(name)}: its member `join_key` is neither a text nor a list of two")
