"""Which addresses a report may link to."""

from __future__ import annotations

from urllib.parse import urlsplit

_SCHEMES = ("http", "https", "mailto")


def is_safe(address: str) -> bool:
    """Return True for an address of a page or a mail, and for a place within the page; never for a script."""
    if address.startswith("#"):
        return True
    try:
        return urlsplit(address.strip()).scheme.lower() in _SCHEMES
    except ValueError:
        return False
