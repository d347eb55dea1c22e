"""Users of the server, with the attributes that it reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mirror.api.client import Client
from mirror.api.fields import camel
from mirror.api.official import call_server, official_method

__all__ = ["User"]

_CONNECTIONS = ("teams", "apiKeys")
_OF_USER = ("id", "name", "username", "email", "admin", "flags", "entity", "deletedAt")
"""The attributes that the official client has for a user that it asked for."""


class User:
    """The user who started a run, owns a project, or owns the API key, with the attributes that the server reported.

    Other attributes raise AttributeError, as in the official client: a user who started a run only has `name` and
    `username`. What the mirror does not hold is asked of the server.
    """

    def __init__(self, reported: Mapping[str, Any], official: Callable[[], Any], *, whole: bool = False) -> None:
        """Use `Api.viewer`, `Project.owner` or `Run.user` to get one.

        `official` returns the official client's object; `whole` is True if that object has all attributes of the user.
        """
        self._reported = dict(reported)
        self._find = official
        self._whole = whole

    @property
    def teams(self) -> list[str]:
        """The names of the teams; none if not reported, as for the user who started a run. Raises CommError."""
        return self._names("teams")

    @property
    def api_keys(self) -> list[str]:
        """The names of the API keys. The mirror holds them only if there are none; else the server is asked.

        An empty list if not reported, as for the user who started a run. Raises CommError.
        """
        return self._names("apiKeys")

    def _names(self, connection: str) -> list[str]:
        if connection not in self._reported:
            attribute = "api_keys" if connection == "apiKeys" else connection
            names: list[str] = call_server(lambda: getattr(self._official, attribute)) if self._whole else []
            return names
        edges = (self._reported[connection] or {}).get("edges") or []
        return [edge["node"]["name"] for edge in edges]

    @property
    def user_api(self) -> Any:
        """The official client's `Api` with this user's key; None if the key is not known."""
        return call_server(lambda: self._official.user_api)

    generate_api_key = official_method("generate_api_key")
    delete_api_key = official_method("delete_api_key")

    @classmethod
    def create(cls, api: Client, email: str, admin: bool | None = False) -> Any:
        """Create a user on the server with the official client. Raises CommError."""
        return api.create_user(email, admin)

    @property
    def _official(self) -> Any:
        return call_server(self._find)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            field = camel(name)
            if field in self._reported and field not in _CONNECTIONS:
                return self._reported[field]
            # Mirrors that were filled by an older version only hold the username.
            if field == "name" and "username" in self._reported:
                return self._reported["username"]
            if self._whole and field in _OF_USER:
                return call_server(lambda: getattr(self._official, name))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, User) and self._reported == other._reported

    def __hash__(self) -> int:
        return hash(self._reported.get("username"))

    def __repr__(self) -> str:
        known = (self._reported.get(name) for name in ("email", "username", "id", "name"))
        return f"<User {next(filter(None, known), '???')}>"
