"""Reading the framing: everything that is whole comes, and damage costs no more than what it hit."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.local import blocks
from tests.local.kit import BLOCK, HEADER, framed

SIZES = st.lists(st.one_of(st.integers(0, 300), st.integers(BLOCK - 40, BLOCK + 40), st.just(3 * BLOCK)), max_size=12)


def payloads(sizes):
    return [bytes([index % 256]) * size for index, size in enumerate(sizes)]


def read(content, offset=0):
    tally = blocks.Tally()
    found = list(blocks.records(io.BytesIO(content), offset, len(content), tally))
    return [one.payload for one in found], found[-1].end if found else offset, tally.damaged


@given(SIZES)
@settings(max_examples=60, deadline=None)
def test_records_of_any_length_come_back_whole(sizes):
    content = HEADER + framed(payloads(sizes), len(HEADER))
    assert read(content) == (payloads(sizes), len(content) if sizes else 0, 0)


@given(SIZES, st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_that_grows_is_read_on_from_where_the_last_whole_record_ended(sizes, data):
    content = HEADER + framed(payloads(sizes), len(HEADER))
    found, offset = [], 0
    for cut in [*sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5))), len(content)]:
        fresh, offset, damaged = read(content[:cut], offset)
        assert damaged == 0
        found += fresh
    assert found == payloads(sizes)


def test_one_wrong_byte_costs_one_record():
    content = bytearray(HEADER + framed(payloads([100] * 50), len(HEADER)))
    content[len(HEADER) + 107 * 20 + 50] ^= 0x40
    found, end, damaged = read(bytes(content))
    assert (found, end, damaged) == (payloads([100] * 20) + payloads([100] * 50)[21:], len(content), 1)


def test_a_wrong_length_costs_the_rest_of_its_block():
    records = [index.to_bytes(2) * 50 for index in range(1000)]
    content = bytearray(HEADER + framed(records, len(HEADER)))
    content[len(HEADER) + 107 * 20 + 5] ^= 0x01
    found, _, damaged = read(bytes(content))
    kept = (BLOCK - len(HEADER)) // 107
    assert damaged == 1
    # Of the record that reaches into the next block half is lost, so it goes as well.
    assert found == records[:20] + records[kept + 1 :]


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
