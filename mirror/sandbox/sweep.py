"""A sweep: a search that starts runs and names them as its own."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Sweep:
    """What the API shows of a sweep; its runs are those of the project whose `sweep` is its name."""

    name: str
    entity: str
    project: str
    created_at: datetime
    config: str
    method: str = "random"
    state: str = "FINISHED"
    display_name: str | None = None
    description: str | None = None
    expected_runs: int | None = None

    @property
    def storage_id(self) -> str:
        """The id that the API shows."""
        return base64.b64encode(f"Sweep:v1:{self.name}:{self.project}:{self.entity}".encode()).decode()
