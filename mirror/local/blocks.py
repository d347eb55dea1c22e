"""The framing of a `.wandb` file: records in blocks of 32 KiB, each piece with a checksum.

A file header of 7 bytes, then LevelDB's log format: a piece is CRC32 (zlib's, over the kind and the data), a length of
16 bits, a kind and the data; a record is one piece, or several pieces in consecutive blocks.
Source: core/pkg/leveldb/record.go and core/internal/transactionlog in github:wandb/wandb.

`wandb-core` before 0.17.6 counted its blocks from the end of the file header, so each of them starts 7 bytes later.
Such files are recognised at their first boundary, and read completely; the client itself cannot read them.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO
from zlib import crc32

from msgspec import Struct

from mirror.errors import MirrorError

BLOCK = 32 * 1024
FILE_HEADER = b":W&B\xe1\xbe\x00"
"""Name, magic number and version of the format; every version of the client has written version 0."""

_PIECE = struct.Struct("<IHB")
PIECE_HEADER = _PIECE.size
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
ALIGNMENTS = (0, len(FILE_HEADER))
"""The offsets from multiples of 32 KiB at which blocks may start."""

_KIND = re.compile(rb"[\x01-\x04]")
_BLOCKS_AT_ONCE = 256
_BOUNDARIES = 1024
"""How many boundaries are checked for the alignment of a file that is damaged at each of them."""


class NotReadable(MirrorError):
    """A file is not a `.wandb` file, or its version is unknown."""


class Framed(Struct, frozen=True):
    """One record. `end` is the offset after it, where reading can continue; `damaged` counts what was skipped."""

    payload: bytes
    end: int
    damaged: int


class Tally(Struct):
    """How many damaged places were skipped until now, also after the last record."""

    damaged: int = 0


def check_header(start: bytes) -> bool:
    """Return True if the file header is complete; a new file may have only a part. Raises NotReadable for any other."""
    if not FILE_HEADER.startswith(start[: len(FILE_HEADER)]):
        raise NotReadable("it is not a .wandb file, or its version is unknown")
    return len(start) >= len(FILE_HEADER)


def records(stream: BinaryIO, offset: int, size: int, tally: Tally) -> Iterator[Framed]:
    """Yield every complete record from `offset` (0, or the end of an earlier record) to `size`.

    Damage is skipped and counted, up to the next valid piece. Reading ends before a record that is not complete yet,
    such as the last one of a live file.
    """
    parts: list[bytes] = []
    lost = False
    at = max(offset, len(FILE_HEADER))
    shift = alignment(stream, size)
    for start, block, whole in _blocks(stream, at, size, shift):
        pos, limit = max(at - start, 0), len(block)
        while pos + PIECE_HEADER <= limit:
            sound, kind, end = _piece(block, pos)
            if not sound:
                if shift is None and pos + PIECE_HEADER > BLOCK:
                    # Either the rest of a block, too short for a piece, or an incomplete piece.
                    return
                found = _next_sound(block, pos, end)
                if found is None and not whole and _may_grow(block, pos, end):
                    return
                if not lost:
                    tally.damaged += 1
                parts, lost = [], True
                pos = limit if found is None else found
                continue
            data = block[pos + PIECE_HEADER : end]
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


def alignment(stream: BinaryIO, size: int) -> int | None:
    """Return the alignment of a file: 0, or 7 for an early `wandb-core`.

    A piece starts at the start of every block, so the first boundary with a valid piece decides. None while the file
    ends before the end of the piece at the first boundary.
    """
    for boundary in range(BLOCK, min(size, BLOCK * _BOUNDARIES) + 1, BLOCK):
        stream.seek(boundary)
        content = stream.read(min(BLOCK + len(FILE_HEADER), size - boundary))
        undecided = False
        for shift in ALIGNMENTS:
            if shift + PIECE_HEADER > len(content):
                undecided = True
                continue
            sound, kind, end = _piece(content, shift)
            empty = sound and end == shift + PIECE_HEADER
            # An empty piece may also fill the last 7 bytes of the block before; after an empty record, both alignments
            # read the same up to the next boundary.
            if empty and kind == _FULL:
                break
            if sound and not (empty and kind == _FIRST):
                return shift
            undecided |= _FULL <= kind <= _LAST and len(content) < end <= shift + BLOCK
        if undecided:
            return None if boundary == BLOCK else 0
    return None if size <= BLOCK else 0


def _piece(block: bytes, pos: int) -> tuple[bool, int, int]:
    """Return whether a valid piece starts at `pos`, its kind, and where it ends."""
    checksum, length, kind = _PIECE.unpack_from(block, pos)
    end = pos + PIECE_HEADER + length
    sound = _FULL <= kind <= _LAST and end <= len(block) and crc32(block[pos + 6 : end]) == checksum
    return sound, kind, end


def _next_sound(block: bytes, pos: int, end: int) -> int | None:
    """Return where the next valid piece after a damaged one starts: at its end if its length is right, else later."""
    if end + PIECE_HEADER <= len(block) and _piece(block, end)[0]:
        return end
    for match in _KIND.finditer(block, pos + PIECE_HEADER):
        if _piece(block, match.start() - 6)[0]:
            return match.start() - 6
    return None


def _may_grow(block: bytes, pos: int, end: int) -> bool:
    """Return True if an incomplete piece at the end of a file may still become a valid one."""
    return end > len(block) or not any(block[pos:])


def _blocks(stream: BinaryIO, offset: int, size: int, shift: int | None) -> Iterator[tuple[int, bytes, bool]]:
    """Yield blocks from the one that contains `offset` on: start offset, content, and whether the block is complete.

    While the alignment is unknown there is one block, which may still grow.
    """
    if shift is None:
        stream.seek(0)
        yield 0, stream.read(min(size, BLOCK + len(FILE_HEADER))), False
        return
    index = max(offset - shift, 0) // BLOCK
    while True:
        # The first block includes the header, and is longer by it where blocks are counted from the header's end.
        start = index * BLOCK + shift if index else 0
        stream.seek(start)
        content = stream.read(max(min((index + _BLOCKS_AT_ONCE) * BLOCK + shift, size) - start, 0))
        if not content:
            return
        pos = 0
        while pos < len(content):
            length = BLOCK + (shift if start + pos == 0 else 0)
            yield start + pos, content[pos : pos + length], pos + length <= len(content)
            pos += length
        index += _BLOCKS_AT_ONCE
        if not any(content[-BLOCK:]) and content.count(0) == len(content):
            index = max(index, _next_data(stream, index * BLOCK + shift, size) // BLOCK)


def _next_data(stream: BinaryIO, offset: int, size: int) -> int:
    """Return where the data of a sparse file continues: `size` if nowhere, `offset` if the system cannot tell."""
    try:
        return max(os.lseek(stream.fileno(), offset, os.SEEK_DATA) - len(FILE_HEADER), offset)
    except OSError as error:
        return size if error.errno == errno.ENXIO else offset
    except AttributeError:
        # This system has no SEEK_DATA.
        return offset
