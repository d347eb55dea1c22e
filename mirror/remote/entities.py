"""The entities whose projects the owner of the key may see: the user's own and those of teams."""

from __future__ import annotations

from mirror.remote.client import Server

_ENTITIES = "query MirrorEntities { viewer { entity username teams { edges { node { name } } } } }"


async def entities(server: Server) -> list[str]:
    """Return their names, the user's default entity first. Raises CommError."""
    viewer = (await server.graphql("MirrorEntities", _ENTITIES, {})).get("viewer") or {}
    teams = [edge["node"]["name"] for edge in (viewer.get("teams") or {}).get("edges", ())]
    return list(dict.fromkeys(name for name in [viewer.get("entity"), viewer.get("username"), *teams] if name))
