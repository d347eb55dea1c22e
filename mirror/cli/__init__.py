"""The `mirror` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; without arguments, that of this process."""
    from mirror.cli.app import run

    if arguments is None:
        sys.meta_path.insert(0, _WithoutPandas())
        arguments = sys.argv[1:]
    return run(arguments)


class _WithoutPandas:
    """Keeps pandas from being imported: no command needs it, but pyarrow imports it if installed (0.3 s per start)."""

    def find_spec(self, name: str, *_: Any) -> None:
        """Report pandas as not installed; leave every other module to the other finders."""
        if name == "pandas":
            raise ModuleNotFoundError("no command needs pandas", name=name)
