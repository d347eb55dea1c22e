"""Lists of the Python API: sequences through which `next` steps, too, as through those of the official client."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

Item = TypeVar("Item")


class Stepped(Sequence[Item]):
    """A sequence with a place: `next` returns the item there, and each loop moves it.

    `next` continues where the last loop ended or was left. Loops have places of their own, so they may be nested.
    """

    _place = 0

    def __iter__(self) -> Iterator[Item]:
        self._place = 0
        return self._walk()

    def _walk(self) -> Iterator[Item]:
        for place, item in enumerate(self._items(), 1):
            self._place = place
            yield item

    @abstractmethod
    def _items(self) -> Iterator[Item]:
        """Return the items in order."""

    def __next__(self) -> Item:
        """Return the next item. Raises StopIteration at the end; a loop starts again from the first."""
        place = self._place
        if place >= len(self):
            raise StopIteration
        self._place = place + 1
        return self[place]

    next = __next__

    @property
    def objects(self) -> list[Item]:
        """All items; in the official client, only those loaded until now."""
        return list(self[:])

    @property
    def more(self) -> bool:
        """Always False: the list is complete from the start."""
        return False


class WholeList(Stepped[Item]):
    """A list of which `_all` returns all items, when it is first used."""

    @abstractmethod
    def _all(self) -> list[Item]:
        """Return all items."""

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._all())

    def _items(self) -> Iterator[Item]:
        return iter(self._all())
