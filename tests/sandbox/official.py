"""The unmodified official client in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mirror.sandbox import Sandbox

PREFIXES = ("WANDB_", "MIRROR_", "XDG_")


def environment(server: Sandbox, folder: Path) -> dict[str, str]:
    """What the client needs to talk to this server and to leave nothing outside of `folder`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(PREFIXES) and key != "NETRC"}
    return clean | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "NETRC": str(folder / "netrc"),
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": server.key,
        "WANDB_DIR": str(folder),
        "WANDB_CONFIG_DIR": str(folder / "config"),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "WANDB_X_DISABLE_STATS": "true",
    }


def run(server: Sandbox, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end; what it started has ended with it."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment(server, folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
