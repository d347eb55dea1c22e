"""The `mirror` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; without arguments, that of this process."""
    if arguments is None:
        from mirror.cli import unneeded

        unneeded.keep_out()
        arguments = sys.argv[1:]
    try:
        from mirror.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:
        # While the modules are imported, or a second Ctrl-C during the end of the first.
        sys.stderr.write("interrupted\n")
        return 130
