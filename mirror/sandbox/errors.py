"""What the server refuses, and with which status."""

from __future__ import annotations


class Refused(Exception):
    """A request, or a field of it, that cannot be answered; the message goes into `errors`."""

    def __init__(self, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
