"""Reading the framing: everything that is whole comes, and damage costs no more than what it hit."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirror.local import blocks
from tests.local.kit import BLOCK, EARLY, HEADER, framed

SIZES = st.lists(st.one_of(st.integers(0, 300), st.integers(BLOCK - 40, BLOCK + 40), st.just(3 * BLOCK)), max_size=12)


def payloads(sizes):
    return [bytes([index % 256]) * size for index, size in enumerate(sizes)]


def read(content, offset=0):
    tally = blocks.Tally()
    found = list(blocks.records(io.BytesIO(content), offset, len(content), tally))
    return [one.payload for one in found], found[-1].end if found else offset, tally.damaged


@given(SIZES, st.sampled_from([0, EARLY]))
@example([BLOCK - 14, 0, 3 * BLOCK], EARLY)
@example([BLOCK - 14, 0, 3 * BLOCK], 0)
@example([BLOCK - 21, 0, 3 * BLOCK], 0)
@settings(max_examples=100, deadline=None)
def test_records_of_any_length_come_back_whole(sizes, shift):
    """Also those of early versions of wandb-core, whose blocks lie 7 bytes further on."""
    content = HEADER + framed(payloads(sizes), len(HEADER), shift)
    assert read(content) == (payloads(sizes), len(content) if sizes else 0, 0)


@given(SIZES, st.sampled_from([0, EARLY]), st.data())
@settings(max_examples=100, deadline=None)
def test_a_file_that_grows_is_read_on_from_where_the_last_whole_record_ended(sizes, shift, data):
    content = HEADER + framed(payloads(sizes), len(HEADER), shift)
    places = st.one_of(st.integers(0, len(content)), st.integers(BLOCK - 20, BLOCK + 40))
    found, offset = [], 0
    for cut in [*sorted(data.draw(st.lists(places, max_size=5))), len(content)]:
        fresh, offset, damaged = read(content[:cut], offset)
        assert damaged == 0
        found += fresh
    assert found == payloads(sizes)


def test_one_wrong_byte_costs_one_record():
    content = bytearray(HEADER + framed(payloads([100] * 50), len(HEADER)))
    content[len(HEADER) + 107 * 20 + 50] ^= 0x40
    found, end, damaged = read(bytes(content))
    assert (found, end, damaged) == (payloads([100] * 20) + payloads([100] * 50)[21:], len(content), 1)


def test_a_wrong_length_costs_one_record():
    records = [index.to_bytes(2) * 50 for index in range(1000)]
    content = bytearray(HEADER + framed(records, len(HEADER)))
    content[len(HEADER) + 107 * 20 + 5] ^= 0x01
    found, end, damaged = read(bytes(content))
    assert (found, end, damaged) == (records[:20] + records[21:], len(content), 1)


@pytest.mark.parametrize("shift", [0, EARLY])
@pytest.mark.parametrize("place", [4, 5, 6, 20])
def test_damage_in_a_short_file_is_no_live_tail(place, shift):
    """A length too long or too short, a kind that is none, a wrong byte, in the first block, of which half is there."""
    records = [index.to_bytes(2) * 50 for index in range(150)]
    content = bytearray(HEADER + framed(records, len(HEADER), shift))
    content[len(HEADER) + 107 * 20 + place] ^= 0x7F
    found, end, damaged = read(bytes(content))
    assert (found, end, damaged) == (records[:20] + records[21:], len(content), 1)


def test_a_wrong_byte_in_the_last_record_is_damage_and_what_is_not_whole_is_not():
    content = HEADER + framed(payloads([100] * 3), len(HEADER))
    assert read(content[:-1]) == (payloads([100] * 2), len(content) - 107, 0)
    assert read(content[:-1] + b"!") == (payloads([100] * 2), len(content) - 107, 1)
    # Some file systems show the new length of a file before its new bytes.
    assert read(content + bytes(50)) == (payloads([100] * 3), len(content), 0)


def test_a_damaged_boundary_leaves_the_alignment_to_the_next_one():
    records = [index.to_bytes(2) * 50 for index in range(1500)]
    for shift in (0, EARLY):
        content = bytearray(HEADER + framed(records, len(HEADER), shift))
        content[BLOCK - 300 : BLOCK + 300] = b"x" * 600
        found, end, damaged = read(bytes(content))
        kept = [record for record in records if record in found]
        assert (found, end, damaged) == (kept, len(content), 1)
        assert len(records) - 8 <= len(found) < len(records)


def test_holes_are_passed_over(tmp_path):
    """A file of a terabyte, of which next to nothing is there, takes no time."""
    path = tmp_path / "run-r1.wandb"
    records = payloads([100] * 3)
    with path.open("wb") as stream:
        stream.write(HEADER + framed(records, len(HEADER)))
        place = 2**40
        stream.seek(place)
        stream.write(framed(records, place))
    tally = blocks.Tally()
    with path.open("rb") as stream:
        found = list(blocks.records(stream, 0, path.stat().st_size, tally))
    assert ([one.payload for one in found], tally.damaged) == (records * 2, 1)


def test_zeroes_in_the_place_of_a_block_are_skipped():
    records = [index.to_bytes(2) * 50 for index in range(1200)]
    content = bytearray(HEADER + framed(records, len(HEADER)))
    content[BLOCK : 2 * BLOCK] = bytes(BLOCK)
    found, end, damaged = read(bytes(content))
    assert (end, damaged) == (len(content), 1)
    ends = [len(HEADER) + len(framed(records[: index + 1], len(HEADER))) for index in range(len(records))]
    starts = [len(HEADER), *ends]
    assert found == [
        record
        for record, start, last in zip(records, starts, ends, strict=False)
        if not BLOCK - 7 < last <= 2 * BLOCK and not BLOCK <= start < 2 * BLOCK
    ]


def test_no_damage_whatever_raises_and_what_comes_was_written():
    """Flips, cuts, holes and inserted bytes, all seeded."""
    rng = random.Random(7)
    records = [rng.randbytes(rng.choice([5, 80, 700, 40_000])) for _ in range(120)]
    whole = HEADER + framed(records, len(HEADER))
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(HEADER), len(content))
            match rng.randrange(4):
                case 0:
                    content[at] ^= 1 << rng.randrange(8)
                case 1:
                    del content[at:]
                    content += whole[len(content) : len(content) + 1]
                case 2:
                    content[at : at + 3000] = bytes(3000)
                case 3:
                    content[at:at] = rng.randbytes(9)
        found, end, _ = read(bytes(content))
        places = iter(records)
        assert all(one in places for one in found)
        assert 0 <= end <= len(content)


@pytest.mark.parametrize("start", [b"", b":W", HEADER[:6]])
def test_a_header_that_is_being_written_is_no_error(start):
    assert blocks.check_header(start) is False


@pytest.mark.parametrize("start", [b"PK\x03\x04", b":W&B\xe1\xbe\x01", b"\0" * 7])
def test_any_other_header_is_refused(start):
    with pytest.raises(blocks.NotReadable):
        blocks.check_header(start)
