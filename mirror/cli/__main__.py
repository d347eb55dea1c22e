"""`python -m mirror.cli` is the command `mirror`."""

from __future__ import annotations

from mirror.cli import main

main()
