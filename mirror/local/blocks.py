"""The framing of a `.wandb` file: records in blocks of 32 KiB, each piece with a checksum.

A file header of 7 bytes, then LevelDB's log format: a piece is CRC32 (zlib's, over the kind and the data), a length of
16 bits, a kind and the data; a record is one piece, or several in blocks that follow each other.
Source: core/pkg/leveldb/record.go and core/internal/transactionlog in github:wandb/wandb.

`wandb-core` before 0.17.6 counted its blocks from behind the file header, so that each of them lies 7 bytes further on.
Such files are noticed at their first boundary, and read whole; the client itself cannot read them.
"""

from __future__ import annotations

import errno
import os
import re
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
ALIGNMENTS = (0, len(FILE_HEADER))
"""How much further on than multiples of 32 KiB blocks may begin."""

_KIND = re.compile(rb"[\x01-\x04]")
_BLOCKS_AT_ONCE = 256
_BOUNDARIES = 1024
"""How many boundaries are looked at for the alignment of a file that is damaged at each of them."""


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

    What is damaged is skipped and counted, up to the next sound piece. Reading ends before a record that is not whole
    yet, as a live file's last one is.
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
                    # Either the rest of a block in which no piece fits, or a piece that is not whole.
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
    """Which of the alignments a file has: 0, or 7 for an early `wandb-core`.

    A piece begins at every block's start, so the first boundary with a sound piece tells. None while the file ends
    before the first boundary's piece does.
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
            # An empty first piece says nothing: it may fill the last 7 bytes of a block.
            if sound and not (kind == _FIRST and end == shift + PIECE_HEADER):
                return shift
            undecided |= _FULL <= kind <= _LAST and len(content) < end <= shift + BLOCK
        if undecided:
            return None if boundary == BLOCK else 0
    return None if size <= BLOCK else 0


def _piece(block: bytes, pos: int) -> tuple[bool, int, int]:
    """Whether a sound piece starts there, its kind, and where it ends."""
    checksum, length, kind = _PIECE.unpack_from(block, pos)
    end = pos + PIECE_HEADER + length
    sound = _FULL <= kind <= _LAST and end <= len(block) and crc32(block[pos + 6 : end]) == checksum
    return sound, kind, end


def _next_sound(block: bytes, pos: int, end: int) -> int | None:
    """Where the next sound piece behind a damaged one starts: at its end if its length is right, else anywhere."""
    if end + PIECE_HEADER <= len(block) and _piece(block, end)[0]:
        return end
    for match in _KIND.finditer(block, pos + PIECE_HEADER):
        if _piece(block, match.start() - 6)[0]:
            return match.start() - 6
    return None


def _may_grow(block: bytes, pos: int, end: int) -> bool:
    """Whether what is there of a piece at the end of a file may be the start of a whole one."""
    return end > len(block) or not any(block[pos:])


def _blocks(stream: BinaryIO, offset: int, size: int, shift: int | None) -> Iterator[tuple[int, bytes, bool]]:
    """Blocks with their offsets, from the one that holds `offset`, and whether they reach up to their end.

    Without an alignment there is one block, which may go on.
    """
    if shift is None:
        stream.seek(0)
        yield 0, stream.read(min(size, BLOCK + len(FILE_HEADER))), False
        return
    index = max(offset - shift, 0) // BLOCK
    while True:
        # The header belongs to the first block, which is the longer for it where blocks are counted from behind it.
        start = index * BLOCK + shift if index else 0
        stream.seek(start)
        content = stream.read(max(min((index + _BLOCKS_AT_ONCE) * BLOCK + shift, size) - start, 0))
        if not content:
            return
        place = 0
        while place < len(content):
            length = BLOCK + (shift if start + place == 0 else 0)
            yield start + place, content[place : place + length], place + length <= len(content)
            place += length
        index += _BLOCKS_AT_ONCE
        if not any(content[-BLOCK:]) and content.count(0) == len(content):
            index = max(index, _data(stream, index * BLOCK + shift, size) // BLOCK)


def _data(stream: BinaryIO, offset: int, size: int) -> int:
    """Where a file of holes goes on to hold something: its end for nowhere, `offset` where that is not known."""
    try:
        return max(os.lseek(stream.fileno(), offset, os.SEEK_DATA) - len(FILE_HEADER), offset)
    except OSError as error:
        return size if error.errno == errno.ENXIO else offset
    except AttributeError:
        # No such question on this system.
        return offset
