"""The summary of a run: a dictionary whose `update` writes its changes to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

__all__ = ["Summary"]


class MissingKey(AttributeError, KeyError):
    """There is no such key: a KeyError as in the official client, and an AttributeError as `hasattr` expects."""

    __str__ = Exception.__str__


class Summary(MutableMapping[str, Any]):
    """The latest value of each key, and values that were set by hand.

    Setting and deleting keys changes this object; `update` writes the changes to the server, then into the mirror.
    Nested objects are plain dictionaries. `run.summary.acc` is short for `run.summary["acc"]`.
    """

    def __init__(self, values: dict[str, Any], write: Callable[[], None]) -> None:
        """Keep the values; `write` sends the changes to the server."""
        object.__setattr__(self, "_json_dict", values)
        object.__setattr__(self, "_write", write)

    def __getitem__(self, key: str) -> Any:
        return self._json_dict[_name(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        self._json_dict[_name(key)] = value

    def __delitem__(self, key: str) -> None:
        del self._json_dict[_name(key)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._json_dict)

    def __len__(self) -> int:
        return len(self._json_dict)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._json_dict[name]
        except KeyError:
            raise MissingKey(f"the summary has no key {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return repr(self._json_dict)

    def get(self, k: str, default: Any = None) -> Any:
        """Return the value of a key, or `default`."""
        return self._json_dict.get(_name(k), default)

    def update(  # type: ignore[override]
        self, key_vals: Mapping[str, Any] | None = None, overwrite: bool = True
    ) -> None:
        """Set these values, then write every change of the summary to the server and into the mirror.

        With `overwrite=False`, existing keys keep their values. Raises CommError if the server refuses.
        """
        for key, value in (key_vals or {}).items():
            if overwrite or _name(key) not in self._json_dict:
                self[key] = value
        self._write()


def _name(key: Any) -> Any:
    """Strip spaces around a key, as the official client does."""
    return key.strip() if isinstance(key, str) else key
