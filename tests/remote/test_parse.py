"""History lines become columns: whole values, no digit lost, nothing the writers of W&B send refused."""

from __future__ import annotations

import json
import math

import pytest

from mirror import wandb_json
from mirror.errors import CommError
from mirror.remote.json_history import KeyGlobs, parse

EVERYTHING = KeyGlobs(["*"])


def rows(page):
    """The values of a page as sorted tuples, NaN as text so that it equals itself."""
    return sorted(
        (
            r["step"],
            r["key"],
            "nan" if isinstance(r["value"], float) and math.isnan(r["value"]) else r["value"],
            r["text"],
        )
        for r in page.values.to_pylist()
    )


def test_numbers_of_many_lines_come_as_one_row_a_value():
    page = parse("r", ['{"_step":0,"loss":1.5,"n":3}', '{"_step":1,"loss":0.5,"n":4}'], EVERYTHING)
    assert rows(page) == [(0, "loss", 1.5, None), (0, "n", 3.0, None), (1, "loss", 0.5, None), (1, "n", 4.0, None)]
    assert (page.rows, page.last_step) == (2, 1)


def test_bare_tokens_and_words_are_the_same_numbers():
    lines = ['{"_step":0,"a":NaN,"b":Infinity,"c":-Infinity}', '{"_step":1,"a":"NaN","b":"Infinity","c":"-Infinity"}']
    inf = math.inf
    expected = [("a", "nan", None), ("b", inf, None), ("c", -inf, None)]
    assert rows(parse("r", lines, EVERYTHING)) == [(step, *entry) for step in (0, 1) for entry in expected]


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63, 2**64 + 1, 10**30, -(10**25)])
def test_integers_past_2_to_the_53_keep_their_digits_as_text(number):
    assert rows(parse("r", [json.dumps({"_step": 0, "n": number})], EVERYTHING)) == [
        (0, "n", float(number), str(number))
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":0.1234567890123456789012,"b":1}', {"a": 0.1234567890123456789012, "b": 1}),
        (
            '{"a":0.1234567890123456789012,"b":12345678901234567890123}',
            {"a": 0.1234567890123456789012, "b": 12345678901234567890123},
        ),
        ('{"a":0.' + "7" * 500 + ',"b":-9223372036854775809}', {"a": 7 / 9, "b": -9223372036854775809}),
        ('{"a":"x.1234567890123456789","b":18446744073709551617}', {"a": "x.1234567890123456789", "b": 2**64 + 1}),
        ("[1.5e-10,10000000000000000000000]", [1.5e-10, 10**22]),
    ],
)
def test_long_integers_are_exact_beside_long_fractions(text, value):
    """A fraction of many digits does not hide an integer of many digits, nor the other way round."""
    found = wandb_json.loads(text)
    assert found == json.loads(text) == value


def test_an_integer_too_large_for_a_double_is_infinite_and_keeps_its_digits():
    number = 10**400
    assert rows(parse("r", [json.dumps({"_step": 0, "n": number})], EVERYTHING)) == [(0, "n", math.inf, str(number))]


def test_what_is_no_number_is_json_text():
    line = json.dumps({"_step": 7, "s": "héllo", "b": True, "z": None, "l": [1, "x"], "e": {}})
    assert rows(parse("r", [line], EVERYTHING)) == [
        (7, "b", None, "true"),
        (7, "e", None, "{}"),
        (7, "l", None, '[1,"x"]'),
        (7, "s", None, '"héllo"'),
        (7, "z", None, "null"),
    ]


def test_objects_become_dotted_keys_but_media_stay_whole():
    image = {"_type": "image-file", "path": "media/a.png"}
    line = json.dumps({"_step": 0, "val": {"acc": 0.5, "by": {"cat": 1}}, "img": image})
    assert rows(parse("r", [line], EVERYTHING)) == [
        (0, "img", None, '{"_type":"image-file","path":"media/a.png"}'),
        (0, "val.acc", 0.5, None),
        (0, "val.by.cat", 1.0, None),
    ]


def test_a_key_may_change_its_type_in_mid_run():
    lines = ['{"_step":0,"x":1}', '{"_step":1,"x":"one"}', '{"_step":2,"x":true}', '{"_step":3,"x":1.5}']
    assert rows(parse("r", lines, EVERYTHING)) == [
        (0, "x", 1.0, None),
        (1, "x", None, '"one"'),
        (2, "x", None, "true"),
        (3, "x", 1.5, None),
    ]


def test_globs_choose_the_keys():
    line = json.dumps({"_step": 0, "loss": 1, "train/acc": 2, "val": {"acc": 3}})
    assert [row[1] for row in rows(parse("r", [line], KeyGlobs(["train/*", "val.acc"])))] == ["train/acc", "val.acc"]
    page = parse("r", [line], KeyGlobs([]))
    assert (page.values.num_rows, page.rows) == (0, 1)


def test_raw_control_characters_and_lone_surrogates_are_accepted():
    page = parse("r", ['{"_step":0,"s":"a\x01b"}', '{"_step":1,"s":"\\ud800"}'], EVERYTHING)
    assert rows(page) == [(0, "s", None, '"a\\u0001b"'), (1, "s", None, '"\ufffd"')]


@pytest.mark.parametrize("line", ["{", '{"loss":1}', "[1]", "null", '{"_step":"x"}'])
def test_a_line_that_cannot_be_read_is_an_error_that_names_the_run(line):
    with pytest.raises(CommError, match="history line of run7 that cannot be read"):
        parse("run7", [line], EVERYTHING)


@pytest.mark.parametrize("value", [1.5, "a", None, True, [1, None], {"a": {"b": []}}, float("inf"), 2**70, "\x01é"])
def test_stored_json_reads_back_as_it_was(value):
    assert wandb_json.loads(wandb_json.dumps({"v": value})) == {"v": value}


def test_nan_is_written_as_a_token_and_null_as_null():
    assert wandb_json.dumps({"a": math.nan, "b": None}) == '{"a":NaN,"b":null}'
