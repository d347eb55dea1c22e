"""Writes the framing of a `.wandb` file, which `blocks` reads."""

from __future__ import annotations

import struct
from typing import BinaryIO
from zlib import crc32

from mirror.local.blocks import BLOCK, FILE_HEADER, PIECE_HEADER

_PIECE = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_STARTS = {kind: crc32(bytes([kind])) for kind in (_FULL, _FIRST, _MIDDLE, _LAST)}
"""The checksum of each kind, with which the checksum of a piece starts."""


class BlockWriter:
    """Appends records to a new file. The caller opens and closes the stream."""

    def __init__(self, stream: BinaryIO) -> None:
        """Write the file header, which is part of the first block."""
        self._stream = stream
        self._place = len(FILE_HEADER)
        stream.write(FILE_HEADER)

    def write(self, record: bytes) -> None:
        """Write one record, in pieces if it does not fit in the current block."""
        left = BLOCK - self._place
        if PIECE_HEADER + len(record) <= left:
            self._piece(_FULL, record)
            return
        rest = memoryview(record)
        first = True
        while first or rest:
            left = BLOCK - self._place
            if left < PIECE_HEADER:
                self._stream.write(bytes(left))
                self._place, left = 0, BLOCK
            part, rest = rest[: left - PIECE_HEADER], rest[left - PIECE_HEADER :]
            kinds = (_FIRST, _FULL) if first else (_MIDDLE, _LAST)
            self._piece(kinds[not rest], part)
            first = False

    def _piece(self, kind: int, data: bytes | memoryview) -> None:
        self._stream.write(_PIECE.pack(crc32(data, _STARTS[kind]), len(data), kind))
        self._stream.write(data)
        self._place = (self._place + PIECE_HEADER + len(data)) % BLOCK
