"""A W&B-shaped endpoint over the mirror, for scripts written for the official SDK; see docs/sdk.md."""

from __future__ import annotations

PATHS = ("/graphql", "/files/")
"""The paths of the endpoint; everything else on the port belongs to the page."""
