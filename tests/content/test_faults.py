"""What goes wrong with one file stops no other; it is named with its error, and tried again later."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from datetime import timedelta

import pytest
from msgspec.structs import replace

from mirror.content import pull as pulling
from mirror.content.part import Part
from mirror.remote import contents as remote_contents
from mirror.remote import thread_transport
from mirror.remote.client import Server
from mirror.sandbox import app
from mirror.sandbox.files import StoredFile
from mirror.store import contents
from mirror.store.blobs import Blobs
from mirror.store.contents import Selection
from mirror.sync.context import utc_now
from tests.remote.test_storage_transport import answering, sized
from tests.sync.rig import HASTY
from tests.sync.test_passes import add

GOOD = b"good" * 100
BIG = os.urandom(600_000)


@pytest.fixture
def run(rig):
    """A run with two files, of which `bad.bin` meets the fault."""
    made = add(rig, "one")
    made.add_file("good.txt", GOOD)
    made.add_file("bad.bin", BIG)
    return made


@pytest.fixture
def ranges(monkeypatch):
    """The ranges of bytes that were asked for, in their order."""
    asked = []
    answer = app.file_answer

    def record(content, media_type, wanted):
        asked.append(wanted)
        return answer(content, media_type, wanted)

    monkeypatch.setattr(app, "file_answer", record)
    return asked


def failures(rig):
    return rig.sql(
        "select name, error, attempts, next_try_at > now()::timestamp from store.content_names where error is not null"
    )


@pytest.fixture
def way(request, monkeypatch):
    """How the files of a test are downloaded: as tasks, or as large ones, in threads."""
    monkeypatch.setattr(remote_contents, "LARGE_BYTES", 0 if request.param == "thread" else 1 << 40)


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        *(("task", kind) for kind in ("expired", "truncated", "500", "503", "reset", "html")),
        *(("thread", kind) for kind in ("expired", "truncated", "503", "html")),
    ],
    indirect=["way"],
)
def test_a_fault_that_passes_is_not_seen(rig, run, way, kind):
    rig.sandbox.faults.add(kind, 1, "file", about="bad.bin", retry_after=0)
    outcome = rig.pull()
    assert (outcome.stored, outcome.failed, outcome.error) == (2, {}, None)
    assert rig.files() == {"bad.bin": BIG, "good.txt": GOOD}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("expired", "bad.bin was refused (403)"),
        ("404", "bad.bin does not exist"),
        ("truncated", "the downloaded content has 300,000 bytes instead of 600,000; it may have changed meanwhile"),
        ("500", "bad.bin could not be downloaded (500)"),
    ],
)
def test_a_fault_that_stays_is_named_and_tried_again_later(rig, run, kind, error):
    rig.sandbox.faults.add(kind, None, "file", about="bad.bin", retry_after=0)
    outcome = rig.pull()
    assert outcome.failed.keys() == {"team/p/one: bad.bin"}
    assert outcome.failed["team/p/one: bad.bin"].endswith(error)
    assert rig.files() == {"bad.bin": None, "good.txt": GOOD}
    assert failures(rig) == [("bad.bin", outcome.failed["team/p/one: bad.bin"], 1, True)]
    rig.sandbox.faults.clear()
    assert rig.pull().stored == 0, "not before its time"
    assert rig.pull(retry=True).stored == 1
    assert rig.files() == {"bad.bin": BIG, "good.txt": GOOD}
    assert failures(rig) == []


@pytest.mark.parametrize("way", ["task", "thread"], indirect=True)
def test_a_download_that_breaks_off_goes_on_where_it_ended(rig, run, way, ranges):
    rig.sandbox.faults.add("reset", 2, "file", about="bad.bin")
    assert rig.pull().failed == {}
    assert rig.files()["bad.bin"] == BIG
    starts = [int(wanted.removeprefix("bytes=").rstrip("-")) for wanted in ranges if wanted]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(BIG)


@pytest.mark.parametrize("way", ["task", "thread"], indirect=True)
def test_what_an_ended_process_has_left_is_continued(rig, run, way, ranges, monkeypatch):
    write = Part.write

    def fail(part, piece):
        if part.expected == len(BIG):
            write(part, piece[:200_000])
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        write(part, piece)

    monkeypatch.setattr(Part, "write", fail)
    assert rig.pull().failed == {"team/p/one: bad.bin": "not written: [Errno 5] Input/output error"}
    monkeypatch.setattr(Part, "write", write)
    (part,) = rig.home.blobs.glob(".parts/*")
    held = part.stat().st_size
    assert 0 < held < len(BIG)
    ranges.clear()
    assert rig.pull(retry=True).failed == {}
    assert ranges == [f"bytes={held}-"]
    assert rig.files()["bad.bin"] == BIG


def test_a_download_that_was_complete_when_its_process_ended_is_not_asked_for_again(rig, run, ranges, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Blobs, "place", fail)
        assert len(rig.pull().failed) == 2
    ranges.clear()
    assert rig.pull(retry=True).failed == {}
    assert (ranges, rig.files()) == ([], {"bad.bin": BIG, "good.txt": GOOD})


def test_a_part_of_another_content_is_dropped(rig, run, monkeypatch):
    write = Part.write

    def fail(part, piece):
        if part.expected == len(BIG):
            write(part, b"x" * 1000)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        write(part, piece)

    monkeypatch.setattr(Part, "write", fail)
    assert len(rig.pull().failed) == 1
    monkeypatch.setattr(Part, "write", write)
    assert rig.pull(retry=True).failed == {}
    assert rig.files()["bad.bin"] == BIG


def test_a_server_without_ranges_sends_all_of_it_again(rig, run, monkeypatch):
    answer = app.file_answer
    monkeypatch.setattr(app, "file_answer", lambda content, media_type, _: answer(content, media_type, None))
    rig.sandbox.faults.add("reset", 1, "file", about="bad.bin")
    assert rig.pull().failed == {}
    assert rig.files()["bad.bin"] == BIG


def test_a_file_that_changed_since_it_was_listed_is_what_it_is_now(rig, run):
    rig.sync(files=True)
    run.add_file("bad.bin", b"another, and shorter")
    run.add_file("good.txt", b"another, and longer" * 100)
    assert rig.pull(listed=False).failed == {}
    assert rig.files() == {"bad.bin": b"another, and shorter", "good.txt": b"another, and longer" * 100}
    assert rig.pull().stored == 0


class Mislabelled(StoredFile, frozen=True):
    """A file whose content is not what the server lists."""

    wrong: str = ""

    @property
    def md5(self) -> str:
        return self.wrong


def test_a_digest_that_does_not_fit_is_a_failure_and_nothing_is_stored(rig, run):
    run.files["bad.bin"] = Mislabelled("bad.bin", BIG, run.clock.moment(), "1B2M2Y8AsgTpgAmY7PhCfg==")
    outcome = rig.pull()
    assert outcome.failed == {
        "team/p/one: bad.bin": "the downloaded content has another MD5 digest than the server lists; it may have changed meanwhile"
    }
    assert rig.blobs() == [GOOD]
    assert list(rig.home.blobs.glob(".parts/*")) == []


@pytest.mark.parametrize("md5", ["", "d41d8cd98f00b204e9800998ecf8427e-3"])
def test_a_file_without_a_digest_that_can_be_checked_is_stored_by_its_size(rig, run, md5):
    run.files["bad.bin"] = Mislabelled("bad.bin", BIG, run.clock.moment(), md5)
    rig.sandbox.faults.add("reset", 1, "file", about="bad.bin")
    assert rig.pull().failed == {}
    assert rig.files()["bad.bin"] == BIG
    assert rig.pull().stored == 0


def test_a_file_that_is_gone_has_its_list_pulled_again(rig, run):
    rig.sync(files=True)
    del run.files["bad.bin"]
    assert rig.pull(listed=False).failed == {"team/p/one: bad.bin": "the server does not have it any more"}
    assert rig.pull().failed == {}
    assert rig.files() == {"good.txt": GOOD}


def test_a_full_disk_ends_the_round_and_the_next_one_goes_on(rig, run, monkeypatch):
    write = Part.write

    def fail(part, piece):
        if part.expected == len(BIG):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(part, piece)

    monkeypatch.setattr(Part, "write", fail)
    outcome = rig.pull()
    assert outcome.error == f"no space left on the disk of {rig.home.blobs}; free some"
    assert list(rig.home.blobs.glob(".parts/*")) == []
    monkeypatch.setattr(Part, "write", write)
    outcome = rig.pull()
    assert (outcome.error, outcome.failed) == (None, {})
    assert rig.files() == {"bad.bin": BIG, "good.txt": GOOD}


HOSTILE = (
    "../x",
    "../../../../x",
    "/etc/x",
    "a\0b",
    "n" * 300,
    "Case.txt",
    "case.txt",
    "a//b",
    ".",
    "sp ace?#%.txt",
    "ünï/☃.txt",
)


def test_no_name_leaves_the_folder(rig, tmp_path):
    run = add(rig, "one")
    wanted = {name: f"content of {name!r}".encode() for name in HOSTILE}
    for name, content in wanted.items():
        run.add_file(name, content)
    outcome = rig.pull()
    assert (outcome.failed, outcome.error) == ({}, None)
    assert rig.files() == wanted
    assert {path.name for path in tmp_path.iterdir()} == {"mirror"}
    assert {path.name for path in (tmp_path / "mirror").iterdir()} == {
        "state.duckdb",
        "mirror.duckdb",
        "history",
        "blobs",
    }


def test_a_run_whose_files_the_server_cannot_address_keeps_no_other_away(rig, run):
    add(rig, "two").add_file("two.txt", b"two")
    rig.sandbox.faults.add("graphql", None, "MirrorContents", about='"one"')
    outcome = rig.pull()
    assert outcome.failed.keys() == {"team/p/one: bad.bin", "team/p/one: good.txt"}
    assert rig.files("two") == {"two.txt": b"two"}
    rig.sandbox.faults.clear()
    assert rig.pull(retry=True).failed == {}
    assert rig.files("one") == {"bad.bin": BIG, "good.txt": GOOD}


@pytest.mark.parametrize("url", ["http://[bad/x", "ftp://host/x", "http://ho st/x"])
def test_an_address_that_is_none_is_a_failure_of_its_file(rig, run, url, monkeypatch):
    ask = pulling.addresses

    async def spoilt(*given):
        found = await ask(*given)
        return {key: replace(one, url=url) if key[1] == "bad.bin" else one for key, one in found.items()}

    monkeypatch.setattr(pulling, "addresses", spoilt)
    assert rig.pull().failed.keys() == {"team/p/one: bad.bin"}
    assert rig.files() == {"bad.bin": None, "good.txt": GOOD}


def test_a_folder_that_cannot_be_written_ends_the_round(rig, run, monkeypatch):
    def forbid(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Part, "write", forbid)
    assert rig.pull().error == f"{rig.home.blobs} cannot be written: Permission denied"


def test_a_server_that_fails_ends_the_round_after_some_downloads(rig, monkeypatch):
    monkeypatch.setattr(pulling, "UNANSWERED", 3)
    run = add(rig, "one")
    for number in range(40):
        run.add_file(f"{number}.txt", str(number))
    rig.sandbox.faults.add("503", None, "file", retry_after=0)
    outcome = rig.pull()
    assert outcome.error is not None
    assert outcome.error.startswith("3 downloads in a row failed: ")
    assert len(outcome.failed) < 40
    rig.sandbox.faults.clear()
    assert rig.pull(retry=True).failed == {}
    assert len(rig.blobs()) == 40


def test_a_run_gets_its_smallest_files_and_the_mirror_no_more_than_its_budget(rig):
    for run_id, sizes in (("one", (10, 20, 30)), ("two", (11, 500))):
        run = add(rig, run_id)
        for size in sizes:
            run.add_file(f"{size:03}.bin", bytes([size % 251]) * size)
    outcome = rig.pull(Selection(("*",), most_of_run=30))
    assert (outcome.stored, outcome.beyond_run, outcome.beyond_budget) == (3, 2, 0)
    assert sorted(map(len, rig.blobs())) == [10, 11, 20]
    outcome = rig.pull(Selection(("*",), budget=100))
    assert (outcome.stored, outcome.beyond_run, outcome.beyond_budget) == (1, 0, 1)
    assert (rig.progress.expected, rig.progress.done) == (2, 2)
    assert sorted(map(len, rig.blobs())) == [10, 11, 20, 30]
    assert rig.sql("select value from store.meta where key = 'contents'")[0][0].count('"beyond_budget": 1') == 1


def test_globs_select_files_by_their_whole_names(rig):
    run = add(rig, "one")
    for name in ("a.json", "media/table/b.json", "media/images/c.png", "output.log"):
        run.add_file(name, name)
    assert rig.pull(Selection(("*.json", "media/images/**"))).stored == 3
    assert {name for name, content in rig.files().items() if content} == {
        "a.json",
        "media/table/b.json",
        "media/images/c.png",
    }


def test_what_failed_is_tried_again_after_the_clock_was_set_back(rig, run):
    rig.sandbox.faults.add("404", None, "file", about="bad.bin")
    assert len(rig.pull().failed) == 1
    rig.sandbox.faults.clear()
    with rig.store() as store, store.transaction() as tx:
        tx.db.run("UPDATE store.content_names SET next_try_at = next_try_at + INTERVAL 3 YEARS WHERE error IS NOT NULL")
        assert contents.retry_due(tx.db, utc_now())
        tx.db.run("UPDATE store.run_extras SET listed_at = listed_at + INTERVAL 3 YEARS")
        before = contents.lists(tx.db)
    assert rig.pull(listed=False).stored == 1
    add(rig, "two").add_file("two.txt", b"two")
    rig.sync(files=True)
    with rig.store() as store:
        assert store.read(contents.lists) != before, "a new list is seen, although its time is an older one"
    with rig.store() as store, store.transaction() as tx:
        tx.db.run("UPDATE store.run_extras SET listed_at = listed_at + INTERVAL 3 YEARS")
    run.add_file("late.txt", b"late")
    run.log({"loss": 1.0}, step=1_000)
    run.finish()
    rig.sync(files=True)
    assert "late.txt" in rig.files(), "the list of a run that changes now is pulled, although it is one of the future"


def test_a_connection_that_always_breaks_off_is_given_up_for_now(rig, run, monkeypatch):
    """Each try brings something, and of a content without a digest nothing of it may be kept."""
    run.files["bad.bin"] = Mislabelled("bad.bin", BIG, run.clock.moment(), "")
    rig.sandbox.faults.add("reset", None, "file", about="bad.bin")
    outcome = rig.pull()
    assert (outcome.stored, outcome.error) == (1, None)
    assert outcome.failed.keys() == {"team/p/one: bad.bin"}
    assert rig.sandbox.faults.counts["reset"] == remote_contents.ATTEMPTS
    assert failures(rig) == [("bad.bin", outcome.failed["team/p/one: bad.bin"], 1, True)]


def test_a_connection_that_brings_a_little_each_time_is_given_up_and_goes_on_later(rig, run, monkeypatch):
    monkeypatch.setattr(remote_contents, "BREAKS", 3)
    rig.sandbox.faults.add("reset", 4, "file", about="bad.bin")
    assert rig.pull().failed.keys() == {"team/p/one: bad.bin"}
    assert rig.pull(retry=True).failed == {}
    assert rig.files()["bad.bin"] == BIG


def test_a_file_for_which_the_server_wants_a_long_wait_is_set_aside_until_then(rig, run):
    rig.sandbox.faults.add("503", None, "file", about="bad.bin", retry_after=5400)
    outcome = rig.pull()
    error = outcome.failed["team/p/one: bad.bin"]
    assert error.endswith("could not be downloaded (503); the server wants it to be asked for again after 5,400 s")
    assert rig.files() == {"bad.bin": None, "good.txt": GOOD}
    waits = rig.sql("select next_try_at - now()::timestamp from store.content_names where error is not null")
    assert timedelta(minutes=85) < waits[0][0] <= timedelta(minutes=90)


@pytest.mark.parametrize("way", ["task", "thread"], indirect=True)
def test_a_disk_that_hangs_holds_up_neither_the_loop_nor_the_end(tmp_path, way, monkeypatch):
    """A cancelled download leaves its thread alone, which closes the file when it is done."""
    monkeypatch.setattr(remote_contents, "STOPPING_SECONDS", 0.05)
    monkeypatch.setattr(thread_transport, "STOPPING_SECONDS", 0.05)
    reached, goes_on = threading.Event(), threading.Event()
    add_up = Part._add

    def hang(part, piece):
        reached.set()
        assert goes_on.wait(30)
        add_up(part, piece)

    monkeypatch.setattr(Part, "_add", hang)

    async def cancelled():
        async with answering(sized(BIG)) as (url, _), Server(url, "", retry=HASTY) as server:
            part = Part(tmp_path / "part", len(BIG), resumable=True)
            task = asyncio.create_task(remote_contents.ContentClient(server).fetch(url, part))
            assert await asyncio.to_thread(reached.wait, 10)
            task.cancel()
            assert (await asyncio.wait([task], timeout=10))[0]
            part.close()
            os.fstat(part._descriptor)  # open, as its thread still needs it
            goes_on.set()
            with pytest.raises(OSError, match="Bad file descriptor"):
                await asyncio.to_thread(look_until_closed, part._descriptor)

    asyncio.run(cancelled())


def look_until_closed(descriptor):
    for _ in range(10_000):
        os.fstat(descriptor)
        time.sleep(0.001)
