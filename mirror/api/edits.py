"""Edits of runs: found by comparing a changed `Run` with its snapshot, and sent to the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mirror.errors import ArgumentError
from mirror.store.records import ProjectKey
from mirror.wandb_json import dumps

if TYPE_CHECKING:
    from mirror.api.run import Run
    from mirror.api.session import Session
    from mirror.remote.client import Server
    from mirror.remote.mutations import Edit
    from mirror.snapshot.snapshot import Address, Snapshot

_TEXTS = {"name": "name", "notes": "notes", "description": "description", "group_name": "group", "job_type": "job_type"}
_OWN = ("_wandb",)


def changes(run: Run, held: Mapping[str, Any], documents: Sequence[str]) -> Edit:
    """Return how the held values of a run differ from its snapshot.

    Raises ArgumentError for values that are not JSON-serialisable.
    """
    from mirror.remote.mutations import Edit

    texts: dict[str, Any] = {}
    for column, field in _TEXTS.items():
        if column in held and held[column] != run._fact(column):  # noqa: SLF001
            texts[field] = _text(held[column], field)
    edit: dict[str, Any] = dict(texts)
    if "tags" in held:
        wanted, known = [_text(tag, "a tag") for tag in held["tags"]], run._fact("tags")  # noqa: SLF001
        edit["add_tags"] = tuple(tag for tag in wanted if tag not in known)
        edit["remove_tags"] = tuple(tag for tag in known if tag not in wanted)
    originals = {"config": run._config, "summary": run._summary}  # noqa: SLF001
    for document in documents:
        if document in held:
            now = held[document] if document == "config" else dict(held[document])
            edit |= _document(document, now, originals[document]())
    return Edit(**edit)


def _document(name: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    values = plain(dict(now), name)
    changed = {
        key: value
        for key, value in values.items()
        if key not in before or dumps(before[key]) != dumps(value) or type(before[key]) is not type(value)
    }
    dropped = frozenset(key for key in before if key not in values and key not in _OWN)
    return {name: changed, f"drop_{name}": dropped}


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
    before: dict[str, Any] = {field: page.fact(address.rid, column) for column, field in _TEXTS.items()}
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
