"""The exception for refusals, with their status."""

from __future__ import annotations


class Refused(Exception):
    """A request, or a field of it, cannot be answered; the message is returned in `errors`."""

    def __init__(self, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
