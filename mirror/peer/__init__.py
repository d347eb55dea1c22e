"""Reads a mirror on another machine, over the HTTP port of its daemon; see docs/api.md.

`Connection` has the face of a DuckDB connection, so what reads the published file here reads it there, too.
"""

from __future__ import annotations

from mirror.peer.address import Peer
from mirror.peer.connection import Connection, connect

__all__ = ["Connection", "Peer", "connect"]
