"""The `mirror` command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

# Imports make many objects that stay; looking through them for garbage again and again is a tenth of a short command.
_COLLECT_AFTER = 50_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    gc.set_threshold(_COLLECT_AFTER)
    from mirror.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)
