"""Names of the W&B protocol that several rooms need."""

from __future__ import annotations

LIVE_STATES = ("running", "pending", "preempting")
"""States in which a run still logs, and writes its summary."""

ENDED_STATES = ("finished", "crashed", "failed", "killed")
"""States of a run that logs nothing more. A preempted run is neither: it may be continued."""

OPEN_SWEEPS = ("RUNNING", "PENDING", "PAUSED")
"""States of a sweep that may get more runs."""

METADATA = "wandb-metadata.json"
"""The file of a run that describes how it was started: machine, command, git."""
