"""Asks the server for what the mirror does not hold, with the official client if it is installed.

Artifacts, registries and everything else that only the server has are the official client's own objects: a
script gets the same as without the mirror.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from mirror.errors import CommError, MirrorError, MissingPackage

if TYPE_CHECKING:
    from mirror.settings.settings import ServerSettings

Result = TypeVar("Result")

_SERVER_ERRORS = ("wandb", "wandb_core", "requests")
"""Packages of the exceptions that the official client raises for errors of the server or the network."""


def connect(server: ServerSettings, environ: Mapping[str, str]) -> Any:
    """Return the official client's `Api` for a server.

    Raises MissingPackage if it is not installed, AuthError without a key, CommError.
    """
    try:
        import wandb
    except ImportError as error:
        raise MissingPackage("this needs the official client, which asks the server: `pip install wandb`") from error
    from mirror.settings import credentials

    key = credentials.find(server.base_url, environ).key
    settings = {
        "base_url": server.base_url,
        "entity": environ.get("WANDB_ENTITY"),
        "organization": environ.get("WANDB_ORGANIZATION"),
    }
    overrides = {name: value for name, value in settings.items() if value}
    return call_server(lambda: wandb.Api(overrides, timeout=max(1, round(server.timeout)), api_key=key))


def call_server(work: Callable[[], Result]) -> Result:
    """Call the official client; its exceptions about the server become CommError."""
    try:
        return work()
    except MirrorError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _SERVER_ERRORS:
            raise
        raise CommError(str(error) or type(error).__name__, getattr(error, "exc", None) or error) from error


def official_method(name: str, *, changes: bool = False) -> Any:
    """Return a method that calls the official object's method; with `changes`, the run is pulled afterwards."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = _guarded(call_server(lambda: getattr(self._official, name)(*args, **kwargs)))
        if changes:
            self._pull_written()
        return result

    method.__name__ = name
    method.__doc__ = f"As the official client's `{name}`, which asks the server. Raises CommError, MissingPackage."
    return method


def _guarded(result: Result) -> Result:
    """Return the result; if it is a list that loads page by page, a page that fails raises CommError, too."""
    load = getattr(result, "_load_page", None)
    if load is not None:
        vars(result)["_load_page"] = lambda: call_server(load)
    return result
