"""What the mirror does not hold is asked of the server by the official client, where that is installed.

Artifacts, reports, registries and what else only the server has are the official client's own objects: a script gets
what it would get without the mirror.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mirror.errors import CommError, MirrorError, MissingPackage

if TYPE_CHECKING:
    from mirror.api.session import Session

Result = TypeVar("Result")

_ITS_OWN = ("wandb", "wandb_core", "requests")
"""Packages of the exceptions that the official client raises for what has to do with the server."""


def connect(session: Session) -> Any:
    """The official client's `Api` for the server that is mirrored.

    Raises MissingPackage where it is not installed, AuthError without a key, CommError.
    """
    try:
        import wandb
    except ImportError as error:
        raise MissingPackage("this is asked of the server by the official client: `pip install wandb`") from error
    from mirror.settings import credentials

    server = session.settings.server
    key = credentials.find(server.base_url, session.environ).key
    settings = {"base_url": server.base_url, "entity": session.environ.get("WANDB_ENTITY")}
    overrides = {name: value for name, value in settings.items() if value}
    return asked_of_server(lambda: wandb.Api(overrides, timeout=max(1, round(server.timeout)), api_key=key))


def asked_of_server(work: Callable[[], Result]) -> Result:
    """The result of a call of the official client. What it raises about the server becomes a CommError."""
    try:
        return work()
    except MirrorError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _ITS_OWN:
            raise
        raise CommError(str(error) or type(error).__name__, getattr(error, "exc", None) or error) from error


def asks(name: str, *, changes: bool = False) -> Any:
    """A method that is the official object's of this name. One that `changes` a run has the mirror take it after."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = _guarded(asked_of_server(lambda: getattr(self._official, name)(*args, **kwargs)))
        if changes:
            self._mirrored()
        return found

    method.__name__ = name
    method.__doc__ = f"As the official client's `{name}`, which asks the server. Raises CommError, MissingPackage."
    return method


def _guarded(found: Result) -> Result:
    """The same; a list that the official client reads page by page raises CommError, too, when a page does not come."""
    load = getattr(found, "_load_page", None)
    if load is not None:
        vars(found)["_load_page"] = lambda: asked_of_server(load)
    return found


def asked(name: str) -> Any:
    """A property that is the official object's of this name."""

    def value(self: Any) -> Any:
        return asked_of_server(lambda: getattr(self._official, name))

    value.__doc__ = f"As the official client's `{name}`, which asks the server. Raises CommError, MissingPackage."
    return property(value)
