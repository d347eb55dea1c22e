"""Servers that fail below HTTP: one that drops packets, one that says nothing, a proxy that refuses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def dropping() -> Iterator[str]:
    """An address at which no connection is ever made, and none is refused: its queue of connections is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def answering(piece: bytes, *, every: float = 0.0) -> Iterator[str]:
    """An address where each connection is sent these bytes, one at a time with `every` seconds between, and no end."""
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            try:
                for byte in piece if every else ():
                    connection.sendall(bytes([byte]))
                    if ended.wait(every):
                        return
                if not every:
                    connection.sendall(piece)
                ended.wait()
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.close()
