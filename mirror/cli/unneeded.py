"""Keeps libraries from loading others that no command uses."""

from __future__ import annotations

import sys
from typing import Any

NAMES = {"pandas", "numpy", "httpx._main"}
"""Where they are installed, pyarrow imports pandas (0.2 s) and numpy (0.1 s), and httpx its own command line (0.05 s).

All three are optional there.
"""


class _Finder:
    def find_spec(self, name: str, *_: Any) -> None:
        """Report an unneeded module as not installed; leave every other module to the other finders."""
        if name in NAMES:
            raise ModuleNotFoundError(f"no command needs {name}", name=name)


def keep_out() -> None:
    """Keep these modules from being imported by this process. Call it once, before other imports."""
    sys.meta_path.insert(0, _Finder())


def allow(*names: str) -> None:
    """Let a command import these after all."""
    NAMES.difference_update(names)
