"""Changes of a run that are not written yet, found before it is read anew, and put on top of what is there then.

What was only looked at is no change: whoever else wrote it meanwhile is not undone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TEXTS = ("name", "notes", "description", "group_name", "job_type")
DOCUMENTS = ("config", "summary")

Fact = Callable[[str], Any]
"""Tells a column of the run as a snapshot has it: one of TEXTS, or `tags`."""

Original = Callable[[str], dict[str, Any]]
"""Tells one of DOCUMENTS as a snapshot has it, an object of its own each time."""


@dataclass(frozen=True)
class Unsaved:
    """New texts by column; new values and dropped keys by document; tags that were added and removed."""

    texts: Mapping[str, Any] = field(default_factory=dict)
    documents: Mapping[str, tuple[dict[str, Any], frozenset[str]]] = field(default_factory=dict)
    added: tuple[Any, ...] = ()
    removed: tuple[Any, ...] = ()


def unsaved(held: Mapping[str, Any], fact: Fact, original: Original) -> Unsaved:
    """How what is held of a run differs from the snapshot that it was read from."""
    documents = {}
    for name in DOCUMENTS:
        if name in held:
            now, before = dict(held[name]), original(name)
            changed = {key: value for key, value in now.items() if key not in before or not _same(value, before[key])}
            documents[name] = changed, frozenset(before) - frozenset(now)
    tags, known = list(held.get("tags", ())), list(fact("tags")) if "tags" in held else []
    return Unsaved(
        {column: held[column] for column in TEXTS if column in held and held[column] != fact(column)},
        documents,
        tuple(tag for tag in tags if tag not in known),
        tuple(tag for tag in known if tag not in tags),
    )


def carry_over(changes: Unsaved, held: dict[str, Any], fact: Fact, original: Original) -> None:
    """Bring what is held up to a newer snapshot, with the changes on top; whoever holds its objects sees them move."""
    for column in (*TEXTS, "metadata"):
        held.pop(column, None)
    held.update(changes.texts)
    for name in DOCUMENTS:
        if name in held:
            changed, dropped = changes.documents.get(name, ({}, frozenset()))
            values = {key: value for key, value in original(name).items() if key not in dropped} | changed
            document = held[name] if name == "config" else held[name]._json_dict  # noqa: SLF001
            document.clear()
            document.update(values)
    if "tags" in held:
        tags = dict.fromkeys([*fact("tags"), *changes.added])
        held["tags"][:] = [tag for tag in tags if tag not in changes.removed]


def _same(one: Any, other: Any) -> bool:
    # By their text, since NaN equals nothing, 1 equals true, and some types compare to what is no truth value.
    return type(one) is type(other) and repr(one) == repr(other)
