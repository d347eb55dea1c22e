"""In place of what copies the published file: does not end by itself."""

from __future__ import annotations

import threading


def main() -> None:
    threading.Event().wait()
