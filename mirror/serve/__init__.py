"""A W&B-shaped endpoint over the mirror, for scripts written for the official SDK; see docs/sdk.md."""

from __future__ import annotations

PATHS = ("/graphql", "/files/")
"""What belongs to the endpoint, beside the page on the same port."""
