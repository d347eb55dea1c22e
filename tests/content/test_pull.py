"""The content of files: downloaded, checked, and stored once."""

from __future__ import annotations

import stat

from tests.sync.test_passes import add


def test_content_is_stored_once_read_only_whatever_number_of_runs_have_it(rig):
    for run_id in ("one", "two"):
        run = add(rig, run_id)
        run.add_file("requirements.txt", b"torch==2.0\n")
        run.add_file(f"media/{run_id}.bin", run_id.encode() * 1000)
    outcome = rig.pull()
    assert (outcome.stored, outcome.failed, outcome.error) == (4, {}, None)
    assert (rig.progress.expected, rig.progress.done) == (4, 4)
    assert rig.files("one") == {"requirements.txt": b"torch==2.0\n", "media/one.bin": b"one" * 1000}
    assert rig.files("two") == {"requirements.txt": b"torch==2.0\n", "media/two.bin": b"two" * 1000}
    assert rig.blobs() == sorted([b"torch==2.0\n", b"one" * 1000, b"two" * 1000])
    assert rig.sandbox.requests["file"] == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in rig.home.blobs.glob("??/*")} == {0o400}
    assert list(rig.home.blobs.glob(".parts/*")) == []
    rig.sandbox.reset_counts()
    assert rig.pull().stored == 0
    assert rig.sandbox.requests["MirrorContents"] == rig.sandbox.requests["file"] == 0
