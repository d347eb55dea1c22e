"""The framing of a `.wandb` file: records in blocks of 32 KiB, each piece with a checksum.

A file header of 7 bytes, then LevelDB's log format: a piece is CRC32 (zlib's, over the kind and the data), a length of
16 bits, a kind and the data; a record is one piece, or several in blocks that follow each other.
Source: core/pkg/leveldb/record.go and core/internal/transactionlog in github:wandb/wandb.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from zlib import crc32

from mirror.errors import MirrorError

BLOCK = 32 * 1024
FILE_HEADER = b":W&B\xe1\xbe\x00"
"""Name, magic number and version of the format; every version of the client has written version 0."""

_PIECE = struct.Struct("<IHB")
PIECE_HEADER = _PIECE.size
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_BLOCKS_AT_ONCE = 256


class NotReadable(MirrorError):
    """A file is no `.wandb` file, or one of an unknown version."""


@dataclass(frozen=True)
class Framed:
    """One record. `end` is the offset behind it, from where reading can go on; `damaged` counts what was skipped."""

    payload: bytes
    end: int
    damaged: int


@dataclass
class Tally:
    """How many damaged places were skipped so far, also behind the last record."""

    damaged: int = 0


def check_header(start: bytes) -> bool:
    """Whether the file's header is whole; a file that is being made may hold less. Raises NotReadable for any other."""
    if not FILE_HEADER.startswith(start[: len(FILE_HEADER)]):
        raise NotReadable("it is no .wandb file, or of a version that is not known here")
    return len(start) >= len(FILE_HEADER)


def records(stream: BinaryIO, offset: int, size: int, tally: Tally) -> Iterator[Framed]:
    """Every whole record from `offset` (0, or the end of an earlier record) up to `size`.

    What is damaged is skipped and counted: up to the next sound piece if one follows at once, else up to the next
    block. Reading ends before a record that is not whole yet, as a live file's last one is.
    """
    parts: list[bytes] = []
    lost = False
    at = max(offset, len(FILE_HEADER))
    for start, block in _blocks(stream, at, size):
        pos, limit = max(at - start, 0), len(block)
        while pos + _PIECE.size <= limit:
            sound, kind, end = _piece(block, pos)
            if not sound:
                follows = end + _PIECE.size <= limit and _piece(block, end)[0]
                if not follows and limit < BLOCK:
                    return
                if not lost:
                    tally.damaged += 1
                parts, lost = [], True
                pos = end if follows else limit
                continue
            data = block[pos + _PIECE.size : end]
            pos = end
            opens = kind in (_FULL, _FIRST)
            if opens == bool(parts) and not lost:
                # A record without its end, or an end without its start.
                tally.damaged += 1
            if opens:
                parts, lost = [data], False
            elif parts:
                parts.append(data)
            else:
                lost = True
            if parts and kind in (_FULL, _LAST):
                yield Framed(data if kind == _FULL else b"".join(parts), start + end, tally.damaged)
                parts = []


def _piece(block: bytes, pos: int) -> tuple[bool, int, int]:
    """Whether a sound piece starts there, its kind, and where it ends."""
    checksum, length, kind = _PIECE.unpack_from(block, pos)
    end = pos + _PIECE.size + length
    sound = _FULL <= kind <= _LAST and end <= len(block) and crc32(block[pos + 6 : end]) == checksum
    return sound, kind, end


def _blocks(stream: BinaryIO, offset: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Blocks with their offsets, from the one that holds `offset`; the last one may be short."""
    start = offset - offset % BLOCK
    stream.seek(start)
    while start < size:
        content = stream.read(min(BLOCK * _BLOCKS_AT_ONCE, size - start))
        if not content:
            return
        for place in range(0, len(content), BLOCK):
            yield start + place, content[place : place + BLOCK]
        start += len(content)
