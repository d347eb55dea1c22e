"""A nested document as the leaves of a tree: the client's own way to keep config and summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from mirror.local.protobuf_items import Path, path
from mirror.local.values import Unreadable, check_name, shown, value


class Tree:
    """Leaves by their path, each as JSON text. Setting a leaf removes those above and below it.

    The same as `pathtree` of the client's core (core/internal/pathtree in github:wandb/wandb), which decides what the
    server is sent.
    """

    def __init__(self) -> None:
        self._leaves: dict[Path, bytes] = {}
        self._inner: Counter[Path] = Counter()
        self._known: set[bytes] = set()
        self._spelled: dict[Path, bytes] = {}
        self._pending: dict[bytes, bytes] = {}

    @property
    def leaves(self) -> dict[Path, bytes]:
        """All values."""
        if self._pending:
            self._leaves.update((path(raw), text) for raw, text in self._pending.items())
            self._pending.clear()
        return self._leaves

    def update(self, items: dict[bytes, bytes]) -> None:
        """Put the values of items, in their order. Where all were put before, without a look at the tree.

        One path can be spelled in several ways, as one `key` or as a `nested_key` of one name. Only the first spelling
        is known: values that wait to be put have no order among each other.
        """
        if items.keys() <= self._known:
            self._pending.update(items)
            return
        for raw, text in items.items():
            place = path(raw)
            self.set(place, text)
            if self._spelled.setdefault(place, raw) == raw:
                self._known.add(raw)

    def set(self, place: Path, text: bytes) -> None:
        """Put a value at a path."""
        leaves = self.leaves
        if place not in leaves:
            above = [place[:length] for length in range(1, len(place))]
            for higher in above:
                self._drop(higher)
            if place in self._inner:
                self.remove(place)
            self._inner.update(above)
        leaves[place] = text

    def remove(self, place: Path) -> None:
        """Remove the value at a path, or all values below it."""
        if place in self.leaves:
            self._drop(place)
        elif place in self._inner:
            for below in [known for known in self.leaves if known[: len(place)] == place]:
                self._drop(below)

    def holds(self, place: Path) -> bool:
        """Whether there is a value at a path, above or below it."""
        leaves = self.leaves
        return place in leaves or place in self._inner or any(place[:n] in leaves for n in range(1, len(place)))

    def document(self, errors: list[str] | None = None) -> dict[str, Any]:
        """The whole as nested values; a leaf that no reader takes is left out, and told in `errors`."""
        result: dict[str, Any] = {}
        for names, text in self.leaves.items():
            try:
                check_name(*names)
                found = value(text)
            except Unreadable as error:
                if errors is not None:
                    errors.append(f"summary {shown('.'.join(names))}: {error}")
                continue
            place = result
            for name in names[:-1]:
                place = place.setdefault(name, {})
            place[names[-1]] = found
        return result

    def _drop(self, place: Path) -> None:
        if self.leaves.pop(place, None) is None:
            return
        self._known.clear()
        self._spelled.clear()
        for length in range(1, len(place)):
            above = place[:length]
            self._inner[above] -= 1
            if not self._inner[above]:
                del self._inner[above]


def flat(place: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """A value with the objects in it taken apart; an empty object has no leaves."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from flat((*place, name), entry)
    else:
        yield place, value
