"""Numbers of bytes as people read them."""

from __future__ import annotations

_STEP = 1000


def size_text(count: float) -> str:
    """Return a number of bytes in the largest unit that it fills: `4.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < _STEP:
            return f"{count:,.0f} B" if unit == "B" else f"{count:,.1f} {unit}"
        count /= _STEP
    return f"{count:,.1f} TB"
