"""The states of a run, as every part of the program sorts them."""

from __future__ import annotations

LIVE_STATES = ("running", "pending", "preempting")
"""States that a run may leave without an edit; until then it may still write its summary."""

ENDED = ("finished", "crashed", "failed", "killed")
"""States that a run keeps, unless it is resumed."""
