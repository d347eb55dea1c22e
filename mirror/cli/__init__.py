"""The `mirror` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; without arguments, that of this process."""
    if arguments is None:
        from mirror.cli import unneeded

        unneeded.keep_out()
        code = _run(sys.argv[1:])
        if "mirror.threads" in sys.modules:
            # Only what uses such threads imports this.
            from mirror.cli import ending

            return ending.ended(code)
        return code
    return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        from mirror.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:
        # While the modules are imported, or a second Ctrl-C during the end of the first.
        sys.stderr.write("interrupted\n")
        return 130
