"""Unsaved changes of a run: found before it is read again, and applied on top of the newer values.

Values that were only read are not changes: what others wrote to them in the meantime is not undone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TEXTS = ("name", "notes", "description", "group_name", "job_type")
DOCUMENTS = ("config", "summary")

Fact = Callable[[str], Any]
"""Returns a column of the run from a snapshot: one of TEXTS, or `tags`."""

Original = Callable[[str], dict[str, Any]]
"""Returns one of DOCUMENTS from a snapshot, as a new object each time."""


@dataclass(frozen=True)
class Unsaved:
    """New texts by column; new values and dropped keys by document; tags that were added and removed."""

    texts: Mapping[str, Any] = field(default_factory=dict)
    documents: Mapping[str, tuple[dict[str, Any], frozenset[str]]] = field(default_factory=dict)
    added: tuple[Any, ...] = ()
    removed: tuple[Any, ...] = ()


def unsaved(held: Mapping[str, Any], fact: Fact, original: Original) -> Unsaved:
    """Return how the held values of a run differ from the snapshot that they were read from."""
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
    """Update the held values to a newer snapshot, in place, and apply the changes on top."""
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
    # Compared by their text: NaN equals nothing, 1 equals True, and some types do not compare to a bool.
    return type(one) is type(other) and repr(one) == repr(other)
