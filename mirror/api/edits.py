"""Edits of runs: what was changed of a `Run` since it was read, sent to the server or carried over to a newer snapshot.

Values that were only read are not changes: what others wrote to them in the meantime is not undone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from mirror.errors import ArgumentError
from mirror.store.records import ProjectKey
from mirror.wandb_json import dumps

if TYPE_CHECKING:
    from mirror.api.session import Session
    from mirror.remote.client import Server
    from mirror.remote.mutations import Edit
    from mirror.snapshot.snapshot import Address, Snapshot

__all__ = ["Changes", "append", "carry_over", "changes", "delete", "edit_of", "plain", "preview", "write"]

TEXTS = {"name": "name", "notes": "notes", "description": "description", "group_name": "group", "job_type": "job_type"}
"""Columns that hold a text, and the fields of an edit that change them."""

DOCUMENTS = ("config", "summary")

_OWN = ("_wandb",)

Fact = Callable[[str], Any]
"""Returns a column of the run from its snapshot: one of TEXTS, or `tags`."""

Original = Callable[[str], dict[str, Any]]
"""Returns one of DOCUMENTS from the run's snapshot, as a new object each time."""


class Changes(Struct, frozen=True):
    """New texts by column; new values and dropped keys by document; tags that were added and removed."""

    texts: Mapping[str, Any] = field(default_factory=dict)
    documents: Mapping[str, tuple[dict[str, Any], frozenset[str]]] = field(default_factory=dict)
    added: tuple[Any, ...] = ()
    removed: tuple[Any, ...] = ()


def changes(held: Mapping[str, Any], fact: Fact, original: Original) -> Changes:
    """Return how the held values of a run differ from the snapshot that they were read from."""
    documents = {}
    for name in DOCUMENTS:
        if name in held:
            now, before = dict(held[name]), original(name)
            changed = {key: value for key, value in now.items() if key not in before or not _same(value, before[key])}
            documents[name] = changed, frozenset(key for key in before if key not in now and key not in _OWN)
    tags, known = (list(held["tags"]), list(fact("tags"))) if "tags" in held else ([], [])
    return Changes(
        {column: held[column] for column in TEXTS if column in held and held[column] != fact(column)},
        documents,
        tuple(tag for tag in tags if tag not in known),
        tuple(tag for tag in known if tag not in tags),
    )


def _same(now: Any, before: Any) -> bool:
    """Compare a value with a mirrored one as JSON, in which NaN equals NaN, and 1 neither 1.0 nor True."""
    try:
        value = plain(now, "")
    except (ArgumentError, RecursionError):
        return False
    return type(value) is type(before) and dumps(value) == dumps(before)


def edit_of(found: Changes) -> Edit:
    """Return the edit that makes these changes on the server.

    Raises ArgumentError for values that are not JSON-serialisable.
    """
    from mirror.remote.mutations import Edit

    edit: dict[str, Any] = {TEXTS[column]: _text(text, TEXTS[column]) for column, text in found.texts.items()}
    edit["add_tags"] = tuple(_text(tag, "a tag") for tag in found.added)
    edit["remove_tags"] = found.removed
    for name, (changed, dropped) in found.documents.items():
        edit |= {name: plain(changed, name), f"drop_{name}": dropped}
    return Edit(**edit)


def carry_over(found: Changes, held: dict[str, Any], fact: Fact, original: Original) -> None:
    """Update the held values to a newer snapshot, in place, and apply the changes on top."""
    for column in (*TEXTS, "metadata"):
        held.pop(column, None)
    held.update(found.texts)
    for name in DOCUMENTS:
        if name in held:
            changed, dropped = found.documents.get(name, ({}, frozenset()))
            values = {key: value for key, value in original(name).items() if key not in dropped} | changed
            document = held[name] if name == "config" else held[name]._json_dict  # noqa: SLF001
            document.clear()
            document.update(values)
    if "tags" in held:
        tags = dict.fromkeys([*fact("tags"), *found.added])
        held["tags"][:] = [tag for tag in tags if tag not in found.removed]


def write(
    session: Session, addresses: Sequence[Address], edit: Edit, written: Callable[[Address], None] | None = None
) -> None:
    """Send one edit to each of these runs, on top of what the server holds now; calls `written` after each.

    Raises CommError for the first run that is refused; those before it are written.
    """
    from mirror.remote import mutations

    async def work(server: Server) -> None:
        for address in addresses:
            record = await mutations.current(server, _project(address), address.run_id)
            await mutations.edit_run(server, record, edit)
            if written is not None:
                written(address)

    session.ask(work)


def delete(session: Session, address: Address, *, delete_artifacts: bool) -> None:
    """Delete a run on the server. Raises CommError."""
    from mirror.remote import mutations

    async def work(server: Server) -> None:
        record = await mutations.current(server, _project(address), address.run_id)
        await mutations.delete_run(server, record.storage_id, delete_artifacts=delete_artifacts)

    session.ask(work)


def append(session: Session, address: Address, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to the history of a run that has ended. Raises ArgumentError and CommError."""
    from mirror.remote import mutations

    complete: list[dict[str, Any]] = []
    for row in rows:
        if not isinstance(row, Mapping):
            raise ArgumentError(f"a history row is a dictionary, not {type(row).__name__}")
        complete.append(plain(dict(row), "a history row"))
    if not complete:
        return

    async def work(server: Server) -> None:
        record = await mutations.current(server, _project(address), address.run_id)
        try:
            await mutations.append_rows(server, record, complete)
        except ValueError as error:
            raise ArgumentError(f"{address}: {error}") from error

    session.ask(work)


def plain(value: Any, where: str) -> Any:
    """Return the value as JSON types: numbers of numpy and similar types become Python's, times become ISO text.

    Raises ArgumentError, which names the key, for any other type.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float | int):
        # Subclasses such as numpy.float64 or an enum of integers become plain numbers.
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ArgumentError(f"{where}: the key {key!r} is not a string")
        return {key: plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry, where) for entry in value]
    for convert in ("tolist", "isoformat"):
        if callable(method := getattr(value, convert, None)):
            return plain(method(), where)
    raise ArgumentError(f"{where}: {type(value).__name__} is not JSON-serialisable")


def _text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ArgumentError(f"{what} must be a string, not {value!r}")
    return value


def _project(address: Address) -> ProjectKey:
    return ProjectKey(address.entity, address.project)


def preview(snapshot: Snapshot, address: Address, edit: Edit) -> list[tuple[str, str, str]]:
    """Return what the edit would change of the mirrored run: field, old and new value as JSON."""
    from mirror.remote.mutations import document_after, tags_after
    from mirror.snapshot.runs import Page

    page = Page(snapshot, [address.rid])
    before: dict[str, Any] = {field: page.fact(address.rid, column) for column, field in TEXTS.items()}
    before["tags"] = page.fact(address.rid, "tags")
    after = {field: old if (new := getattr(edit, field, None)) is None else new for field, old in before.items()}
    after["tags"] = tags_after(before["tags"], edit)
    for name in ("config", "summary"):
        values = page.document(address.rid, name)
        changed, dropped, paths = (getattr(edit, field) for field in (name, f"drop_{name}", f"{name}_paths"))
        new = document_after(values, changed, dropped, paths)
        before |= {f"{name}.{key}": value for key, value in values.items()}
        after |= {f"{name}.{key}": value for key, value in new.items()}
    fields = dict.fromkeys([*before, *after])
    lines = [(field, dumps(before.get(field)), dumps(after.get(field))) for field in fields]
    return [line for line in lines if line[1] != line[2]]
