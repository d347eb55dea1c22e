"""Users of the server, as far as it told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mirror.api.official import asked_of_server, asks

if TYPE_CHECKING:
    from mirror.api.api import Api

_CONNECTIONS = ("teams", "apiKeys")
_OF_USER = ("id", "name", "username", "email", "admin", "flags", "entity", "deletedAt")
"""What the official client knows of a user that it asked for."""


def camel(name: str) -> str:
    """A name of Python's as the server's API has it: "created_at" is "createdAt"."""
    first, *others = name.split("_")
    return first + "".join(word.title() for word in others)


class User:
    """Who started a run, owns a project, or holds the API key: `username`, `name` and what else the server told.

    An attribute that it did not tell with this user is an AttributeError, as in the official client: of whoever started
    a run there are `name` and `username`. What the mirror does not hold is asked of the server.
    """

    def __init__(self, told: Mapping[str, Any], official: Callable[[], Any], *, whole: bool = False) -> None:
        """Users come from `Api.viewer`, `Project.owner` and `Run.user`.

        `official` finds the official client's object; `whole` says that it knows everything about this user.
        """
        self._told = dict(told)
        self._find = official
        self._whole = whole

    @property
    def teams(self) -> list[str]:
        """The names of the teams; none where they were not told, as for whoever started a run. Raises CommError."""
        return self._names("teams")

    @property
    def api_keys(self) -> list[str]:
        """The names of the API keys. The mirror knows at most that there are none; else the server is asked.

        None where they were not told, as for whoever started a run. Raises CommError.
        """
        return self._names("apiKeys")

    def _names(self, connection: str) -> list[str]:
        if connection not in self._told:
            python = "api_keys" if connection == "apiKeys" else connection
            found: list[str] = asked_of_server(lambda: getattr(self._official, python)) if self._whole else []
            return found
        edges = (self._told[connection] or {}).get("edges") or []
        return [edge["node"]["name"] for edge in edges]

    @property
    def user_api(self) -> Any:
        """An `Api` of the official client with this user's key, or None where that is not known."""
        return asked_of_server(lambda: self._official.user_api)

    generate_api_key = asks("generate_api_key")
    delete_api_key = asks("delete_api_key")

    @classmethod
    def create(cls, api: Api, email: str, admin: bool | None = False) -> Any:
        """A new user of the server, as the official client makes one. Raises CommError."""
        return api.create_user(email, admin)

    @property
    def _official(self) -> Any:
        return asked_of_server(self._find)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            wanted = camel(name)
            if wanted in self._told and wanted not in _CONNECTIONS:
                return self._told[wanted]
            # Mirrors that an older program filled know the username alone.
            if wanted == "name" and "username" in self._told:
                return self._told["username"]
            if self._whole and wanted in _OF_USER:
                return asked_of_server(lambda: getattr(self._official, name))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, User) and self._told == other._told

    def __hash__(self) -> int:
        return hash(self._told.get("username"))

    def __repr__(self) -> str:
        known = (self._told.get(name) for name in ("email", "username", "id", "name"))
        return f"<User {next(filter(None, known), '???')}>"
