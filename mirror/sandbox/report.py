"""Reports and saved views: what the W&B app keeps as a JSON text under the name "view"."""

from __future__ import annotations

import base64
from datetime import datetime

from msgspec import Struct

REPORT = "runs"
WORKSPACE = "project-view"
"""Types of views, as the app calls them."""


class Report(Struct, frozen=True):
    """A view as the API returns it: `kind` is REPORT or WORKSPACE, `spec` its JSON text."""

    number: int
    name: str
    entity: str
    project: str
    title: str
    spec: str
    user: str
    created_at: datetime
    updated_at: datetime
    description: str = ""
    kind: str = REPORT

    @property
    def storage_id(self) -> str:
        """The id in the API; it is part of the address of a report's page."""
        return base64.b64encode(f"View:{self.number}".encode()).decode()
