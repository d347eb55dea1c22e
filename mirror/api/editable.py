"""Attributes that a script may change, and then sends to the server with `save`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mirror.api.official import call_server


def editable(name: str, doc: str) -> Any:
    """Return a property over the object's `_current`; what is not in it is asked of the server."""

    def read(self: Any) -> Any:
        if name not in self._current:
            self._current[name] = call_server(lambda: getattr(self._official, name))
        return self._current[name]

    def write(self: Any, value: Any) -> None:
        self._current[name] = value

    return property(read, write, doc=doc)


def changed(of: Any, mirrored: Mapping[str, Any]) -> dict[str, Any]:
    """Send what differs from the mirrored values with the official client, and return it."""
    changes = {name: value for name, value in of._current.items() if value != mirrored.get(name)}  # noqa: SLF001
    if not changes:
        return changes

    def send() -> None:
        official = of._official  # noqa: SLF001
        for name, value in changes.items():
            setattr(official, name, value)
        official.save()

    call_server(send)
    return changes
