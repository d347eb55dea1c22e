"""Commands that set a mirror up."""

from __future__ import annotations


def init() -> None:
    """Write a config file."""


def login() -> None:
    """Store a key."""
