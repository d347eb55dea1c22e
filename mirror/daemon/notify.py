"""Reports the daemon's state to the service manager, by systemd's notification protocol (sd_notify)."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger("mirror.daemon.notify")


class Notifier:
    """Sends datagrams to the socket that systemd names in NOTIFY_SOCKET; does nothing without it.

    `watchdog` is how many seconds may pass between two pings, or None if no watchdog is set.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte at the start of a name in Linux' abstract namespace.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog = _watchdog(environ) if address else None
        self._status = ""

    @property
    def active(self) -> bool:
        """True if a service manager listens."""
        return bool(self._address)

    def ready(self) -> None:
        """Startup is complete; services that depend on the daemon may start."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload of the config has started; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Shutdown has started."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def status(self, text: str) -> None:
        """Send the status line if it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={' '.join(text.split())}")

    def ping(self) -> None:
        """Watchdog ping."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self.active:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as out:
                # A manager that does not read must not hold up the loop.
                out.setblocking(False)
                out.sendto(message.encode(), self._address)
        except OSError as error:
            log.debug("could not send %s to the service manager: %s", message.partition("\n")[0], error)


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Return WATCHDOG_USEC in seconds, if it is meant for this process."""
    try:
        seconds = int(environ["WATCHDOG_USEC"]) / 1e6
        meant = int(environ.get("WATCHDOG_PID") or os.getpid()) == os.getpid()
    except (KeyError, ValueError):
        return None
    return seconds if meant and seconds > 0 else None
