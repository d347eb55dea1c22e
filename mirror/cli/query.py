"""Commands that read the mirror."""

from __future__ import annotations


def query() -> None:
    """Query the mirror."""


def history() -> None:
    """History."""


def export() -> None:
    """Export."""
