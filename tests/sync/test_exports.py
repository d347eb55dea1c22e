"""History that the server has exported to Parquet is mirrored as its lines would be, and only when all of it is there."""

from __future__ import annotations

import asyncio
import errno
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror.errors import CommError
from mirror.remote import limits
from mirror.remote import parquet_history as remote_exports
from mirror.remote.json_history import KeyGlobs
from mirror.sandbox import Sandbox, World
from mirror.sandbox import parquet as sandbox_parquet
from mirror.store import bulk
from mirror.store import history as stored_history
from mirror.sync import export_downloads, history, parquet_history
from tests.sync.rig import Rig


@pytest.fixture(autouse=True)
def _few_rows_are_enough(monkeypatch):
    monkeypatch.setattr(parquet_history, "FEWEST_ROWS", 10)


def logged(world: World, run_id: str, steps: range, **more):
    run = world.add_run("team", "p", run_id=run_id, state="running")
    rows = []
    for step in steps:
        row = {"loss": 1 / (step + 1), "opt": {"lr": step * 1e-3}, "count": step}
        if step % 3 == 0:
            row["rare"] = float("nan") if step % 2 else -math.inf
        rows.append({"_step": step, **row, **more})
    run.log_many(rows)
    return run


def everything(rig: Rig):
    history = rig.sql("select run_id, key, step, value, text from history order by all")
    keys = rig.sql("select * from history_keys order by all")
    rows = rig.sql("select run_id, history_rows from runs order by all")
    return repr((history, keys, rows))


def mirrored_by_lines(tmp_path, sandbox, monkeypatch):
    """What a mirror holds that uses no exports."""
    with monkeypatch.context() as patch:
        patch.setattr(parquet_history, "FEWEST_ROWS", 10**9)
        rig = Rig(tmp_path / "lines", sandbox)
        assert rig.sync()["team/p"].failed == {}
        return everything(rig)


def requests(sandbox, name):
    return sandbox.requests.get(name, 0)


@pytest.mark.parametrize("in_memory", [0, 10**6])
def test_files_and_live_steps_together_are_what_the_lines_are(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(parquet_history, "IN_MEMORY", in_memory)
    monkeypatch.setattr("mirror.remote.parquet_history.PAGE_VALUES", 50)
    with Sandbox(World()) as sandbox:
        whole = logged(sandbox.world, "whole", range(0, 5000, 2))
        for upto in (1001, 2500, 4999):
            whole.export_history(upto)
        whole.finish()
        partly = logged(sandbox.world, "partly", range(2000))
        partly.export_history(1200)
        logged(sandbox.world, "none", range(100))
        logged(sandbox.world, "short", range(5)).export_history()
        expected = mirrored_by_lines(tmp_path, sandbox, monkeypatch)
        rig = Rig(tmp_path / "files", sandbox)
        result = rig.sync()["team/p"]
        assert (result.failed, result.error, result.rows) == ({}, None, 2500 + 2000 + 100 + 5)
        assert everything(rig) == expected
        assert requests(sandbox, "parquet") == 4
        assert list((tmp_path / "files" / ".spool").glob("*")) == []
        before = requests(sandbox, "parquet")
        partly.log_many([{"_step": step, "loss": 0.5} for step in range(2000, 2100)])
        rig.sync()
        assert rig.history("partly")[-1] == (2099, 0.5)
        # The one file of the run is looked at again, and gives nothing new.
        assert requests(sandbox, "parquet") == before + 1


def test_a_run_that_went_on_after_its_export_takes_only_what_is_new_from_the_files(tmp_path):
    with Sandbox(World()) as sandbox:
        run = logged(sandbox.world, "r", range(500))
        rig = Rig(tmp_path, sandbox)
        rig.sync()
        run.log_many([{"_step": step, "loss": 0.25} for step in range(500, 700)])
        run.export_history(300)
        run.export_history(699)
        run.finish()
        assert rig.sync()["team/p"].rows == 200
        assert [step for step, _ in rig.history("r")] == list(range(700))


@pytest.mark.parametrize(
    "more",
    [
        {"note": "text"},
        {"flag": True},
        {"curve": [1, 2]},
        {"img": {"_type": "image-file", "path": "a.png"}},
        {"id": 2**60 + 1},
    ],
    ids=["text", "bool", "list", "media", "large integer"],
)
def test_what_an_export_cannot_tell_exactly_comes_as_lines(tmp_path, monkeypatch, more):
    with Sandbox(World()) as sandbox:
        run = logged(sandbox.world, "r", range(50), **more)
        run.export_history()
        run.finish()
        expected = mirrored_by_lines(tmp_path, sandbox, monkeypatch)
        rig = Rig(tmp_path / "files", sandbox)
        assert rig.sync()["team/p"].failed == {}
        assert everything(rig) == expected


def damaged(lines, how):
    content = sandbox_parquet.file(lines)
    return content[: len(content) // 2] if how == "cut" else b"PAR1 no file at all PAR1"


@pytest.mark.parametrize("how", ["missing steps", "cut", "nonsense", "overlapping", "interleaved"])
def test_exports_with_known_faults_lose_and_double_nothing(tmp_path, monkeypatch, how):
    with Sandbox(World()) as sandbox:
        run = logged(sandbox.world, "r", range(100))
        lines = run.history.page(0, 100, None)
        files = {
            "missing steps": [lines[:40], lines[45:]],
            "overlapping": [lines[:60], lines[30:]],
            "interleaved": [lines[::2], lines[1::2]],
            "cut": [lines],
            "nonsense": [lines],
        }[how]
        run.exports = [
            damaged(part, how) if how in ("cut", "nonsense") else sandbox_parquet.file(part) for part in files
        ]
        run.exported_to = 99
        run.finish()
        expected = mirrored_by_lines(tmp_path, sandbox, monkeypatch)
        rig = Rig(tmp_path / "files", sandbox)
        assert rig.sync()["team/p"].failed == {}
        assert everything(rig) == expected
        assert rig.sql("select history_rows from runs") == [(100,)]


def test_globs_narrow_what_is_read_from_files(tmp_path):
    with Sandbox(World()) as sandbox:
        run = logged(sandbox.world, "r", range(100), note="text")
        run.export_history()
        run.finish()
        rig = Rig(tmp_path, sandbox)
        rig.sync(history=("loss", "opt.*"))
        assert rig.sql("select key, count(*) from history group by 1 order by 1") == [("loss", 100), ("opt.lr", 100)]
        assert rig.sql("select history_rows from runs") == [(100,)]
        assert requests(sandbox, "parquet") == 1
        assert requests(sandbox, "MirrorHistory") == 0


def test_a_server_without_exports_is_asked_once(tmp_path):
    with Sandbox(World(), features={"parquet": False}) as sandbox:
        for number in range(60):
            logged(sandbox.world, f"r{number}", range(20)).finish()
        rig = Rig(tmp_path, sandbox)
        assert rig.sync()["team/p"].rows == 60 * 20
        assert requests(sandbox, "MirrorExports") == 1


@pytest.mark.parametrize("kind", ["expired", "500", "truncated", "reset"])
def test_files_that_cannot_be_had_are_replaced_by_lines(tmp_path, kind):
    with Sandbox(World()) as sandbox:
        run = logged(sandbox.world, "r", range(100))
        run.export_history()
        run.finish()
        sandbox.faults.add(kind, None, "parquet")
        rig = Rig(tmp_path, sandbox)
        assert rig.sync()["team/p"].failed == {}
        assert [step for step, _ in rig.history("r")] == list(range(100))


def watch_storage(sandbox, seen):
    """Call `seen` with each request for an exported file, and wait for what it returns, before the file is sent."""
    answer = sandbox._gate.answer

    async def watched(request, operation, produce, **options):
        if operation == "parquet":
            await seen(request)
        return await answer(request, operation, produce, **options)

    sandbox._gate.answer = watched


def test_files_have_connections_of_their_own_and_share_them(tmp_path):
    """With one question at a time, sixteen files are under way; no connection is opened beyond the bound."""
    with Sandbox(World()) as sandbox:
        for number in range(80):
            logged(sandbox.world, f"r{number:02}", range(20)).export_history()
            sandbox.world.run("team", "p", f"r{number:02}").finish()
        connections = set()
        under_way = 0
        sixteen = asyncio.Event()

        async def seen(request):
            nonlocal under_way
            connections.add(request.client.port)
            under_way += 1
            if under_way == 16:
                sixteen.set()
            await asyncio.wait_for(sixteen.wait(), 20)

        watch_storage(sandbox, seen)
        rig = Rig(tmp_path, sandbox)
        rig.max_concurrency = 1
        assert rig.sync()["team/p"].rows == 80 * 20
        assert (requests(sandbox, "parquet"), requests(sandbox, "MirrorHistory")) == (80, 0)
        assert 16 <= len(connections) <= limits.STORAGE_CONNECTIONS


@pytest.mark.parametrize("damage", ["cut", "bytes", "empty", "missing steps"])
def test_one_damaged_file_among_many_affects_no_other(tmp_path, monkeypatch, damage):
    """Runs are read in groups of eight; only the lines of the one with the damaged file are asked for."""
    monkeypatch.setattr(export_downloads.Downloads, "ready", True)
    with Sandbox(World()) as sandbox:
        for number in range(12):
            logged(sandbox.world, f"r{number:02}", range(300)).export_history()
            sandbox.world.run("team", "p", f"r{number:02}").finish()
        expected = mirrored_by_lines(tmp_path, sandbox, monkeypatch)
        run = sandbox.world.run("team", "p", "r03")
        content = run.exports[0]
        run.exports[0] = {
            "cut": content[: len(content) // 2],
            "bytes": content[:100] + bytes(400) + content[500:],
            "empty": b"",
            "missing steps": sandbox_parquet.file(run.history.page(0, 299, None)),
        }[damage]
        sandbox.reset_counts()
        groups = []
        read = parquet_history.Exported._read_group
        monkeypatch.setattr(
            parquet_history.Exported,
            "_read_group",
            lambda exported, group: groups.append([one.span.run_id for one in group]) or read(exported, group),
        )
        rig = Rig(tmp_path / "files", sandbox)
        assert rig.sync()["team/p"].failed == {}
        assert everything(rig) == expected
        assert groups == [[f"r{number:02}" for number in range(8)], [f"r{number:02}" for number in range(8, 12)]]
        assert (requests(sandbox, "parquet"), requests(sandbox, "MirrorHistory")) == (12, 1)


def test_runs_of_different_keys_are_read_together(tmp_path, monkeypatch):
    monkeypatch.setattr(export_downloads.Downloads, "ready", True)
    with Sandbox(World()) as sandbox:
        for number in range(8):
            more = {f"only/{number}/{key}": number * key for key in range(number)}
            logged(sandbox.world, f"r{number}", range(100 + number), **more).export_history()
            sandbox.world.run("team", "p", f"r{number}").finish()
        expected = mirrored_by_lines(tmp_path, sandbox, monkeypatch)
        sandbox.reset_counts()
        rig = Rig(tmp_path / "files", sandbox)
        assert rig.sync()["team/p"].failed == {}
        assert everything(rig) == expected
        assert (requests(sandbox, "parquet"), requests(sandbox, "MirrorHistory")) == (8, 0)


@pytest.mark.parametrize("trouble", [None, "a run that the store does not take", "no room for drafts"])
def test_segments_are_drafted_while_others_are_committed(tmp_path, monkeypatch, trouble):
    """All but the first, which shows that segments are what the values go to."""
    monkeypatch.setattr(bulk, "FEWEST", 100)
    monkeypatch.setattr(history, "COMMIT_VALUES", 1500)
    monkeypatch.setattr(export_downloads.Downloads, "ready", False)
    taken: list[bool] = []
    holds, append = bulk.Draft.holds, stored_history.append

    def noted(drafted, blocks):
        taken.append(holds(drafted, blocks))
        return taken[-1]

    def appended(tx, project, pages, **more):
        if trouble == "a run that the store does not take" and any(page.run_id == "r05" for page in pages):
            raise ValueError("not this one")
        return append(tx, project, pages, **more)

    with Sandbox(World()) as sandbox:
        for number in range(12):
            logged(sandbox.world, f"r{number:02}", range(300)).export_history()
            sandbox.world.run("team", "p", f"r{number:02}").finish()
        monkeypatch.setattr(bulk.Draft, "holds", noted)
        if trouble == "no room for drafts":
            monkeypatch.setattr(bulk.files, "sync_file", refusing(bulk.files.sync_file))
        monkeypatch.setattr(stored_history, "append", appended)
        rig = Rig(tmp_path / "files", sandbox)
        rig.tail_values = 100
        failed = rig.sync()["team/p"].failed
        if trouble == "a run that the store does not take":
            assert list(failed) == ["r05"]
        else:
            assert failed == {}
            assert everything(rig) == mirrored_by_lines(tmp_path, sandbox, monkeypatch)
        others = rig.sql("select count(*), count(distinct run_id) from history where run_id <> 'r05'")
        assert others == [(11 * 1600, 11)]
        assert list(rig.home.history.rglob("*.part")) == []
    if trouble is None:
        assert len(taken) >= 4
        assert all(taken)


def refusing(sync_file):
    def refused(path):
        if path.suffix == ".part" and "-" not in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync_file(path)

    return refused


@pytest.mark.parametrize("renewed", [True, False])
def test_an_address_that_expired_while_it_waited_is_asked_for_again_once(tmp_path, renewed):
    with Sandbox(World(), url_lifetime=-1) as sandbox:
        run = logged(sandbox.world, "r", range(100))
        run.export_history()
        run.finish()

        async def seen(_):
            if renewed:
                sandbox._context.signer.lifetime = 3600

        watch_storage(sandbox, seen)
        rig = Rig(tmp_path, sandbox)
        assert rig.sync()["team/p"].failed == {}
        assert rig.history("r") == [(row["_step"], row["loss"]) for row in run.rows()]
        asked = [requests(sandbox, name) for name in ("MirrorExports", "parquet", "MirrorHistory")]
        # A third one at the end of the pass, for the facts of runs with nested values.
        assert asked == [3, 2, 0 if renewed else 1]


def test_addresses_that_are_always_refused_are_not_asked_for_again_for_every_run(tmp_path, monkeypatch):
    monkeypatch.setattr(export_downloads, "FEWEST_AHEAD", 1)
    monkeypatch.setattr(export_downloads, "MOST_AHEAD", 1)
    with Sandbox(World(), url_lifetime=-1) as sandbox:
        for number in range(12):
            logged(sandbox.world, f"r{number:02}", range(20)).export_history()
        rig = Rig(tmp_path, sandbox)
        assert rig.sync()["team/p"].rows == 12 * 20
        assert (requests(sandbox, "MirrorExports"), requests(sandbox, "parquet")) == (2, 13)


def spooled(rig):
    """What lies in the folder of files that are only needed for a while."""
    return sorted((rig.home.data / ".spool").glob("**/*"))


def on_disk(monkeypatch):
    """Let every file go through the disk, and be read page by page."""
    monkeypatch.setattr(export_downloads, "SMALL_BYTES", 0)
    monkeypatch.setattr(parquet_history, "IN_MEMORY", 0)
    monkeypatch.setattr("mirror.remote.parquet_history.PAGE_VALUES", 50)


def two_files(sandbox, run_id="r"):
    run = logged(sandbox.world, run_id, range(2000))
    run.export_history(999)
    run.export_history()
    run.finish()
    return run


def test_a_file_that_is_refused_leaves_nothing_in_the_spool(tmp_path, monkeypatch):
    """Also not the file beside it, which comes while that one is refused."""
    on_disk(monkeypatch)
    with Sandbox(World()) as sandbox:
        run = two_files(sandbox)
        rig = Rig(tmp_path, sandbox)
        refused = sandbox.faults
        refused.add("expired", operation="parquet")
        result = rig.sync()["team/p"]
        assert (result.error, result.failed) == (None, {})
        assert rig.history("r") == [(row["_step"], row["loss"]) for row in run.rows()]
        assert (refused.counts["expired"], spooled(rig)) == (1, [])


def test_a_pass_that_ends_early_leaves_nothing_in_the_spool(tmp_path, monkeypatch):
    """Whatever part of it fails: files that are read, that wait, and that are under way."""
    on_disk(monkeypatch)
    with Sandbox(World()) as sandbox:
        for number in range(12):
            two_files(sandbox, f"r{number:02}")
        rig = Rig(tmp_path, sandbox)
        with monkeypatch.context() as patch:

            async def fails(*_):
                raise ZeroDivisionError("not thought of")

            patch.setattr(history, "COMMIT_VALUES", 1)
            patch.setattr(history._Job, "_commit", fails)
            assert "ZeroDivisionError" in rig.sync()["team/p"].error
            assert spooled(rig) == []
        assert rig.sync()["team/p"].error is None
        assert rig.sql("select count(distinct run_id), sum(history_rows)::int from runs") == [(12, 24_000)]
        assert spooled(rig) == []


def test_the_rest_of_a_file_that_cannot_be_read_comes_as_lines(tmp_path, monkeypatch):
    on_disk(monkeypatch)
    read = remote_exports.pages

    def broken(run_id, part, keys):
        for number, page in enumerate(read(run_id, part, keys)):
            if run_id == "r" and number == 1:
                raise CommError("the file is damaged")
            yield page

    monkeypatch.setattr(remote_exports, "pages", broken)
    with Sandbox(World()) as sandbox:
        run = two_files(sandbox)
        two_files(sandbox, "other")
        rig = Rig(tmp_path, sandbox)
        result = rig.sync()["team/p"]
        assert (result.error, result.failed) == (None, {})
        assert rig.history("r") == [(row["_step"], row["loss"]) for row in run.rows()]
        assert rig.sql("select run_id, history_rows from runs order by 1") == [("other", 2000), ("r", 2000)]
        assert spooled(rig) == []


def test_a_file_of_one_large_row_group_is_read_with_little_memory(tmp_path):
    rows, file = 300_000, tmp_path / "0.parquet"
    noise = np.random.default_rng(1)
    columns = {f"metric/{number}": noise.random(rows) for number in range(10)}
    pq.write_table(pa.table({"_step": np.arange(rows), **columns}), file, use_dictionary=False)
    assert pq.read_metadata(file).num_row_groups == 1
    assert file.stat().st_size > 20_000_000
    keys = KeyGlobs(["*"])
    parts = remote_exports.parts([file], 0, keys)
    assert parts is not None
    before, most, values = pa.total_allocated_bytes(), 0, 0
    for page in remote_exports.pages("r", parts[0], keys):
        most = max(most, pa.total_allocated_bytes() - before)
        values += page.values.num_rows
    assert values == 10 * rows
    # Two pages, and what is read of each column.
    assert most < 28_000_000
