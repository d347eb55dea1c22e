"""A nested document as the leaves of a tree: the client's own structure for config and summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from mirror.local.protobuf_items import Path, path
from mirror.local.values import Unreadable, check_name, shown, value


class Tree:
    """Leaves by their path, each as JSON text. Setting a leaf removes those above and below it.

    Behaves as `pathtree` in the client's core (core/internal/pathtree in github:wandb/wandb), which determines what is
    sent to the server.
    """

    def __init__(self) -> None:
        self._leaves: dict[Path, bytes] = {}
        self._inner: Counter[Path] = Counter()
        self._known: set[bytes] = set()
        self._spelled: dict[Path, bytes] = {}
        self._pending: dict[bytes, bytes] = {}

    @property
    def leaves(self) -> dict[Path, bytes]:
        """All values by path."""
        if self._pending:
            self._leaves.update((path(raw), text) for raw, text in self._pending.items())
            self._pending.clear()
        return self._leaves

    def update(self, items: dict[bytes, bytes]) -> None:
        """Set the values of items in order. If all of these keys were set before, this is deferred.

        One path can be encoded in several ways, as one `key` or as a `nested_key` of one name. Only the first encoding
        is deferred: deferred values have no order among each other.
        """
        if items.keys() <= self._known:
            self._pending.update(items)
            return
        for raw, text in items.items():
            names = path(raw)
            self.set(names, text)
            if self._spelled.setdefault(names, raw) == raw:
                self._known.add(raw)

    def set(self, names: Path, text: bytes) -> None:
        """Set the value at a path."""
        leaves = self.leaves
        if names not in leaves:
            above = [names[:length] for length in range(1, len(names))]
            for higher in above:
                self._drop(higher)
            if names in self._inner:
                self.remove(names)
            self._inner.update(above)
        leaves[names] = text

    def remove(self, names: Path) -> None:
        """Remove the value at a path, or all values below it."""
        if names in self.leaves:
            self._drop(names)
        elif names in self._inner:
            for below in [known for known in self.leaves if known[: len(names)] == names]:
                self._drop(below)

    def holds(self, names: Path) -> bool:
        """Return True if there is a value at a path, or above or below it."""
        leaves = self.leaves
        return names in leaves or names in self._inner or any(names[:n] in leaves for n in range(1, len(names)))

    def document(self, errors: list[str] | None = None) -> dict[str, Any]:
        """Return the nested document; a leaf that cannot be read is left out, and reported in `errors`."""
        result: dict[str, Any] = {}
        for names, text in self.leaves.items():
            try:
                check_name(*names)
                found = value(text)
            except Unreadable as error:
                if errors is not None:
                    errors.append(f"summary {shown('.'.join(names))}: {error}")
                continue
            parent = result
            for name in names[:-1]:
                parent = parent.setdefault(name, {})
            parent[names[-1]] = found
        return result

    def _drop(self, names: Path) -> None:
        if self.leaves.pop(names, None) is None:
            return
        self._known.clear()
        self._spelled.clear()
        for length in range(1, len(names)):
            above = names[:length]
            self._inner[above] -= 1
            if not self._inner[above]:
                del self._inner[above]


def flat(names: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the leaves of a value with their paths; an empty object has none."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from flat((*names, name), entry)
    else:
        yield names, value
