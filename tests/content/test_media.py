"""The relations media and histograms, for what the official client does not log any more, and for broken values."""

from __future__ import annotations

import hashlib

import pytest

from tests.content.rig import content_rig
from tests.sync.test_passes import add


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with content_rig(tmp_path_factory.mktemp("media") / "mirror") as made:
        run = add(made, "one", rows=0)
        rows = [
            {"packed": {"_type": "histogram", "values": [3, 4], "packedBins": {"min": -1, "size": 0.5, "count": 2}}},
            {"edges": {"_type": "histogram", "values": [1], "bins": [0, float("nan")]}},
            {"broken": {"_type": "histogram", "values": "none", "bins": {}}},
            {"empty": {"_type": "histogram", "values": [], "bins": [0]}},
            {"list": [{"_type": "image-file", "path": "media/a.png", "sha256": SHA.upper(), "size": 1}, 7, None]},
            {"text": 'the word "_type": "image-file" in a text'},
            {"no_path": {"_type": "image-file", "width": "wide"}},
            {
                "odd": {
                    "_type": "table-file",
                    "path": "media/it's.json",
                    "width": "wide",
                    "height": 1.5,
                    "caption": ["a"],
                }
            },
            {"by_artifact": {"_type": "table-file", "artifact_path": "wandb-client-artifact://abc/t.table.json"}},
            {"molecules": {"_type": "molecule", "filenames": ["media/m.pdb"], "count": 1, "captions": False}},
            {"joined": {"_type": "joined-table", "path": "media/j.json"}},
        ]
        for step, row in enumerate(rows):
            run.log(row, step=step)
        made.sync(files=True)
        yield made


CONTENT = b"an image"
SHA = hashlib.sha256(CONTENT).hexdigest()


def test_histograms_of_both_spellings_are_bins_and_broken_ones_are_none(rig):
    found = rig.sql("select key, step, bin, low, high, count from histograms order by key, bin")
    assert [tuple(map(str, row)) for row in found] == [
        ("edges", "1", "0", "0.0", "nan", "1.0"),
        ("packed", "0", "0", "-1.0", "-0.5", "3.0"),
        ("packed", "0", "1", "-0.5", "0.0", "4.0"),
    ]


def test_media_without_the_official_clients_help(rig):
    columns = "key, item, type, caption, width, height, path, digest, local_path"
    assert rig.sql(f"select {columns} from media where step is not null order by step, item") == [
        ("list", 0, "image-file", None, None, None, "media/a.png", SHA, None),
        ("odd", 0, "table-file", '["a"]', None, 2, "media/it's.json", None, None),
        ("by_artifact", 0, "table-file", None, None, None, "wandb-client-artifact://abc/t.table.json", None, None),
        ("molecules", 0, "molecule-file", None, None, None, "media/m.pdb", None, None),
        ("joined", 0, "joined-table", None, None, None, "media/j.json", None, None),
    ]
    summarised = "select key, item, path from media where step is null order by key"
    logged = "select key, item, path from media where step is not null order by key"
    assert rig.sql(summarised) == rig.sql(logged)


def test_a_medium_is_found_by_its_digest_whatever_file_holds_it(rig):
    other = add(rig, "two", rows=0)
    other.add_file("elsewhere.png", CONTENT)
    assert rig.pull().failed == {}
    ((digest, path),) = rig.sql("select digest, local_path from media where key = 'list' and step is not null")
    assert (digest, path) == (SHA, str(rig.home.blobs / SHA[:2] / SHA[2:]))
