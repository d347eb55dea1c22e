"""Artifacts as relations: versions, aliases, files and usage, and what a pass asks the server for to see them."""

from __future__ import annotations

import json

import pytest

from mirror.errors import CommError
from mirror.remote import artifacts as remote
from mirror.remote import manifests
from mirror.sync.context import Scope
from tests.content.rig import content_rig
from tests.sync.test_passes import add


@pytest.fixture
def rig(rig):
    """A rig whose passes pull artifacts, also when they are asked for a whole listing only."""
    rig.lists = Scope(artifacts=True)
    return rig


def look(rig, scope=None, **changes):
    """One pass; its result, and the documents that it sent beside the heads of runs."""
    rig.sandbox.reset_counts()
    result = rig.sync(artifacts=True, **changes)["team/p"]
    assert result.error is None
    del rig.sandbox.requests["MirrorRuns"]
    return result, {name: count for name, count in rig.sandbox.requests.items() if count}


def model(rig, name="net", *, kind="model", **facts):
    files = facts.pop("files", {"weights.bin": name.encode()})
    return rig.world.add_artifact("team", "p", kind, name, files, **facts)


def versions(rig, columns="version, aliases"):
    order = "order by collection, version_number"
    return [" ".join(map(str, row)) for row in rig.sql(f"select collection, {columns} from artifacts {order}")]


def test_a_version_is_a_row_with_what_the_server_says_of_it(rig):
    run = add(rig, "one")
    first = model(
        rig,
        by=run,
        aliases=["best"],
        metadata={"acc": 0.5},
        description="the first",
        ttl_seconds=60,
        files={"a": b"12"},
    )
    rig.world.add_artifact("team", "p", "dataset", "digits", {"d": b"123"}, references={"far": ("s3://b/far", 40)})
    result, _ = look(rig)
    assert result.failed_artifacts == {}
    columns = (
        "type, version, version_number, aliases, digest, size, file_count, state, run_id, description, metadata, ttl_s, "
        "artifact_id, deleted_at, run_path"
    )
    data = rig.world.artifact("team", "p", "digits")
    assert rig.sql(f"select {columns} from artifacts order by type desc") == [
        ("model", "v0", 0, "best,latest", first.digest, 2, 1, "COMMITTED", "one", "the first", '{"acc":0.5}', 60,
         first.storage_id, None, "team/p/one"),
        ("dataset", "v0", 0, "latest", data.digest, 43, 2, "COMMITTED", None, None, None, None,
         data.storage_id, None, None),
    ]  # fmt: skip
    assert rig.sql("select created_at from artifacts where type = 'model'") == [
        (first.created_at.replace(tzinfo=None),)
    ]


@pytest.mark.parametrize("layout", ["V1", "V2"])
def test_a_manifest_is_rows_with_references_as_references(rig, layout):
    add(rig, "one")
    model(
        rig,
        layout=layout,
        files={"a.txt": b"12", "deep/../../é.bin": b""},
        references={"far.bin": ("s3://bucket/far.bin", 40), "page": "https://example.com/page"},
    )
    look(rig)
    found = rig.sql("select path, size, md5, reference, digest, local_path from artifact_files order by path")
    assert found == [
        ("a.txt", 2, "wgrU12/pd1mqJ6DJm/9nEA==", None, None, None),
        ("deep/../../é.bin", 0, "1B2M2Y8AsgTpgAmY7PhCfg==", None, None, None),
        ("far.bin", 40, "s3://bucket/far.bin", "s3://bucket/far.bin", None, None),
        ("page", None, "https://example.com/page", "https://example.com/page", None, None),
    ]


def test_runs_that_used_and_logged_a_version_are_rows_wherever_it_is(rig):
    one, two = add(rig, "one"), add(rig, "two")
    elsewhere = rig.world.add_artifact("team", "other", "dataset", "digits", {"d": b"1"})
    made = model(rig, by=one)
    two.use_artifact(made)
    two.use_artifact(elsewhere)
    look(rig)
    columns = "run_id, relation, artifact_entity, artifact_project, collection, version, run_path"
    assert rig.sql(f"select {columns} from artifact_usage order by run_id, artifact_project") == [
        ("one", "output", "team", "p", "net", "v0", "team/p/one"),
        ("two", "input", "team", "other", "digits", "v0", "team/p/two"),
        ("two", "input", "team", "p", "net", "v0", "team/p/two"),
    ]


def test_a_pass_over_nothing_new_costs_one_request_and_writes_nothing(rig):
    add(rig, "one")
    for index in range(7):
        model(rig, f"net-{index}")
    look(rig)
    stored = rig.sql("select * from store.artifact_records order by aid")
    assert look(rig)[1] == {"MirrorCollectionMarks": 1}
    assert rig.sql("select * from store.artifact_records order by aid") == stored


def test_without_the_setting_no_artifact_is_asked_for(rig):
    add(rig, "one")
    model(rig)
    rig.sandbox.reset_counts()
    rig.sync()
    assert not {name for name in rig.sandbox.requests if "Collection" in name or "Uses" in name}
    assert versions(rig) == []


def test_a_new_version_moves_its_aliases_and_only_its_manifest_is_pulled(rig):
    add(rig, "one")
    for _ in range(3):
        model(rig, aliases=["best"])
    look(rig)
    assert versions(rig) == ["net v0 None", "net v1 None", "net v2 best,latest"]
    model(rig, files={"other.bin": b"1"}, aliases=["newest"])
    _, requests = look(rig)
    assert requests == {"MirrorCollectionMarks": 1, "MirrorVersions": 1, "MirrorManifests": 1, "manifest": 1}
    assert versions(rig) == ["net v0 None", "net v1 None", "net v2 best", "net v3 latest,newest"]
    assert rig.sql("select version, path from artifact_files where version = 'v3'") == [("v3", "other.bin")]


def test_a_deleted_version_stays_with_the_time_and_its_files(rig):
    add(rig, "one")
    first = model(rig)
    model(rig, files={"b": b"2"})
    look(rig)
    rig.world.delete_artifact(first)
    look(rig)
    assert versions(rig, "version, deleted_at is not null") == ["net v0 True", "net v1 False"]
    assert rig.sql("select version, path from artifact_files order by version") == [
        ("v0", "weights.bin"),
        ("v1", "b"),
    ]
    assert look(rig)[1] == {"MirrorCollectionMarks": 1}


def test_a_deleted_collection_is_noticed_by_the_count(rig):
    add(rig, "one")
    model(rig, "gone")
    model(rig, "net")
    look(rig)
    del rig.world.artifacts.collections["team", "p"]["gone"]
    look(rig)
    assert versions(rig, "deleted_at is not null") == ["gone True", "net False"]
    assert look(rig)[1] == {"MirrorCollectionMarks": 1}


def test_a_collection_that_was_created_again_under_its_name_replaces_the_versions_that_have_the_same_numbers(rig):
    add(rig, "one")
    for number in range(2):
        model(rig, files={f"old-{number}": b"1"}, aliases=[f"old-{number}"])
    look(rig)
    del rig.world.artifacts.collections["team", "p"]["net"]
    model(rig, files={"new": b"2"})
    look(rig)
    assert versions(rig, "version, aliases, deleted_at is not null") == [
        "net v0 latest False",
        "net v1 latest,old-1 True",
    ]
    assert rig.sql("select version, path from artifact_files order by 1") == [("v0", "new"), ("v1", "old-1")]


def test_an_alias_that_moves_between_old_versions_is_found_by_the_complete_listing(rig):
    add(rig, "one")
    first = model(rig, aliases=["best"])
    second = model(rig)
    model(rig)
    look(rig)
    rig.world.artifacts.name(second, ["best"])
    first.description = "changed"
    look(rig, reconcile_interval=0.0)
    assert versions(rig, "aliases, description") == ["net None changed", "net best None", "net latest None"]


def test_a_new_version_beyond_the_first_page_is_found_by_the_run_that_logged_it(rig, monkeypatch):
    run = add(rig, "one")
    for index in range(4):
        model(rig, f"net-{index}")
    look(rig)
    monkeypatch.setattr(remote, "PROBE_COLLECTIONS", 2)
    model(rig, "net-0", files={"b": b"2"}, by=run)
    run.edit(notes="later")
    assert look(rig)[1]["MirrorCollectionMarks"] == 1
    assert versions(rig)[:2] == ["net-0 v0 None", "net-0 v1 latest"]


def test_a_pass_over_one_run_has_what_it_logged(rig):
    run = add(rig, "one")
    model(rig, "old")
    look(rig)
    model(rig, "old", files={"b": b"2"}, by=run)
    model(rig, "new", by=run)
    model(rig, "new-of-another")
    rig.sync("team/p/one", artifacts=True)
    assert versions(rig, "version, run_id")[:3] == ["new v0 one", "new-of-another v0 None", "old v0 None"]
    assert rig.sql("select collection, path from artifact_files where version = 'v1'") == [("old", "b")]


def test_a_collection_whose_versions_cannot_be_listed_keeps_them_and_no_other_away(rig, monkeypatch):
    monkeypatch.setattr(remote, "PAGE_COLLECTION_VERSIONS", 1)
    add(rig, "one")
    for name in ("good", "bad"):
        for number in range(3):
            model(rig, name, files={f"{name}-{number}": b"1"})
    look(rig)
    rig.sandbox.faults.add("403", None, "MirrorVersions", about="bad")
    model(rig, "good", files={"new": b"1"})
    result, _ = look(rig, reconcile_interval=0.0)
    assert result.failed_artifacts["team/p"].startswith("the versions of bad could not be listed: ")
    assert versions(rig, "version, deleted_at is not null") == [
        *(f"bad v{number} False" for number in range(3)),
        *(f"good v{number} False" for number in range(4)),
    ]
    rig.sandbox.faults.clear()
    assert look(rig)[0].failed_artifacts == {}


def test_new_collections_are_paged_until_they_explain_the_count(rig, monkeypatch):
    add(rig, "one")
    model(rig, "old")
    look(rig)
    monkeypatch.setattr(remote, "PROBE_COLLECTIONS", 2)
    for index in range(5):
        model(rig, f"net-{index}")
    _, requests = look(rig)
    assert (requests["MirrorCollectionMarks"], requests["MirrorVersions"], requests.get("MirrorCollections")) == (
        *(3, 1),
        None,
    )
    assert len(versions(rig)) == 6
    assert look(rig)[1] == {"MirrorCollectionMarks": 1}


def test_pages_of_every_size_list_every_version_once(rig, monkeypatch):
    for name, size in (
        ("PAGE_COLLECTIONS", 2),
        ("PAGE_COLLECTION_VERSIONS", 1),
        ("PAGE_VERSIONS", 2),
        ("PAGE_USES", 2),
    ):
        monkeypatch.setattr(remote, name, size)
    run = add(rig, "one")
    for index, count in enumerate((1, 2, 5, 6, 1)):
        for number in range(count):
            model(rig, f"net-{index}", files={"a": f"{index}-{number}".encode()}, by=run)
    look(rig)
    expected = [f"net-{index} v{number}" for index, count in enumerate((1, 2, 5, 6, 1)) for number in range(count)]
    assert versions(rig, "version") == expected
    assert len(rig.sql("select distinct collection, version from artifact_usage")) == len(expected)
    assert len(rig.sql("select * from artifact_files")) == len(expected)


def test_a_linked_version_is_a_version_of_both_collections_with_the_aliases_of_each(rig):
    run = add(rig, "one")
    model(rig, by=run)
    second = model(rig, files={"b": b"2"}, aliases=["best"], by=run)
    rig.world.link_artifact(second, "team", "p", "approved", aliases=["production"])
    look(rig)
    assert versions(rig, "version, list_sort(string_split(aliases, ',')), run_id") == [
        "approved v0 ['latest', 'production'] one",
        "net v0 None one",
        "net v1 ['best', 'latest'] one",
    ]
    assert rig.sql("select count(distinct artifact_id) from artifacts") == [(2,)]
    assert rig.sql("select collection, version from artifact_files where path = 'b' order by 1") == [
        ("approved", "v0"),
        ("net", "v1"),
    ]
    assert look(rig)[1] == {"MirrorCollectionMarks": 1}


# What fails does not stop the rest


def failed(rig):
    return dict(rig.sql("select collection, error from store.artifact_records where error is not null order by 1"))


BROKEN = {
    "no manifest": (None, "its manifest could not be read: the server has none"),
    "cut": (b'{"version": 1, "contents": {"a": ', "its manifest could not be read: the server sent a manifest that cannot be read ("),
    "not an object": (b"[]", "its manifest could not be read: the server sent a manifest that cannot be read ("),
    "entries of another form": (b'{"version": 1, "contents": {"a": 1}}', "its manifest could not be read: the server sent a manifest"),
    "a text as size": (b'{"version": 1, "contents": {"a": {"size": "x"}}}', "its manifest could not be read: the server sent a manifest"),
    "of the future": (
        b'{"version": 9, "contents": {}}', "its manifest could not be read: its manifest has version 9; this program reads 1 and 2"
    ),
}  # fmt: skip


def test_a_manifest_that_cannot_be_read_is_named_and_tried_again_and_the_others_are_here(rig, cli, monkeypatch):
    add(rig, "one")
    model(rig, "good")
    whole = {}
    for index, (content, _) in enumerate(BROKEN.values()):
        made = model(rig, f"bad-{index}")
        whole[made], made.manifest = made.manifest, content
    result, _ = look(rig)
    found = failed(rig)
    assert list(found) == [f"bad-{index}" for index in range(len(BROKEN))]
    for error, (_, beginning) in zip(found.values(), BROKEN.values(), strict=True):
        assert error.startswith(beginning)
    assert result.failed_artifacts == {f"team/p/{name}:v0": error for name, error in found.items()}
    assert rig.sql("select collection, path from artifact_files") == [("good", "weights.bin")]
    assert look(rig)[1] == {"MirrorCollectionMarks": 1}
    monkeypatch.setenv("MIRROR_HOME", str(rig.home.data))
    text = cli("status").stdout
    assert "artifacts 7" in text
    assert "team/p/bad-0:v0" in text
    status = json.loads(cli("status", "--json").stdout)["artifacts"]
    assert (status["versions"], status["unmatched"], status["errors"], len(status["failed"])) == (
        7,
        [],
        [],
        len(BROKEN),
    )
    for made, content in whole.items():
        made.manifest = content
    rig.pull(retry=True)
    assert rig.pull() is not None
    assert failed(rig) == {}
    assert len(rig.sql("select * from artifact_files")) == 7


def test_an_address_that_expired_is_asked_for_again(rig):
    add(rig, "one")
    model(rig)
    rig.sandbox.faults.add("expired", 1, "manifest")
    result, requests = look(rig)
    assert (result.failed_artifacts, requests["MirrorManifests"], requests["manifest"]) == ({}, 2, 2)


def test_a_version_that_is_not_complete_is_named_in_the_status_until_it_is_and_fails_no_sync(rig):
    add(rig, "one")
    made = model(rig)
    model(rig, "other")
    made.state = "PENDING"
    result, _ = look(rig)
    error = "it is not complete on the server (PENDING)"
    assert (result.failed_artifacts, failed(rig)) == ({}, {"net": error})
    made.state = "COMMITTED"
    look(rig)
    assert failed(rig) == {}
    assert rig.sql(
        "select collection, state, path from artifacts join artifact_files using (collection) order by 1"
    ) == [
        ("net", "COMMITTED", "weights.bin"),
        ("other", "COMMITTED", "weights.bin"),
    ]


def test_a_server_that_does_not_list_artifacts_is_named_and_runs_are_mirrored(rig):
    add(rig, "one")
    rig.sandbox.faults.add("403", None, "MirrorCollections")
    result, _ = look(rig)
    (error,) = result.failed_artifacts.values()
    assert error.startswith("artifacts could not be listed: ")
    assert rig.sql("select error from store.artifact_listings") == [(error,)]
    assert rig.sql("select run_id from runs") == [("one",)]
    rig.sandbox.faults.clear()
    assert look(rig)[0].failed_artifacts == {}
    assert rig.sql("select error from store.artifact_listings") == [(None,)]


OLD = ("artifact_facts", "artifact_usage", "ARTIFACT_COLLECTIONS_FILTERING_SORTING")


def test_fields_that_an_older_server_lacks_are_left_out(tmp_path):
    """Each is refused by name once, and so are the lists of what runs used."""
    with content_rig(tmp_path / "mirror", features=dict.fromkeys(OLD, False)) as rig:
        add(rig, "one")
        model(rig, ttl_seconds=60)
        look(rig)
        assert rig.sql("select version, ttl_s, updated_at, run_id, aliases from artifacts") == [
            ("v0", None, None, None, "latest")
        ]
        model(rig, "another")
        look(rig)
        assert versions(rig) == ["another v0 latest", "net v0 latest"]
        del rig.world.artifacts.collections["team", "p"]["net"]
        look(rig, reconcile_interval=0.0)
        assert versions(rig, "deleted_at is not null") == ["another False", "net True"]


def test_a_server_that_lists_artifacts_by_type_only_is_asked_type_by_type(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAGE_COLLECTIONS", 2)
    with content_rig(tmp_path / "mirror", features={"artifact_collections": False}) as rig:
        add(rig, "one")
        for kind in ("model", "dataset"):
            for index in range(3):
                model(rig, f"{kind}-{index}", kind=kind)
        _, requests = look(rig)
        assert requests["MirrorCollections"] == 1 + 2 * 2
        model(rig, "dataset-9", kind="dataset")
        look(rig)
        assert versions(rig, "type") == [
            *(f"dataset-{index} dataset" for index in (0, 1, 2, 9)),
            *(f"model-{index} model" for index in range(3)),
        ]
        assert look(rig)[1] == {"MirrorCollectionMarks": 1 + 2, "MirrorArtifactTypes": 1}


def test_a_flush_pulls_everything_again_and_a_forgotten_project_leaves_nothing(rig):
    from mirror.store import forget
    from mirror.store.records import ProjectKey

    run = add(rig, "one")
    model(rig, by=run)
    look(rig)
    rig.sandbox.reset_counts()
    rig.sync(artifacts=True, afresh=True)
    assert rig.sandbox.requests["MirrorCollections"] == rig.sandbox.requests["manifest"] == 1
    assert rig.sandbox.requests["MirrorUses"] == 1
    with rig.store() as store:
        with store.transaction() as tx:
            forget.project(tx, ProjectKey("team", "p"))
        store.publish()
    for table in ("listings", "collections", "records", "aliases", "entries", "uses"):
        assert rig.sql(f"select count(*) from store.artifact_{table}") == [(0,)]


def test_a_large_manifest_is_read_as_columns():
    entries = {f"dir/{index}": {"digest": "x", "size": index} for index in range(20_000)}
    table = manifests.parse(json.dumps({"version": 2, "contents": entries}).encode())
    assert (table.num_rows, table["size"][19_999].as_py()) == (20_000, 19_999)
    with pytest.raises(CommError, match="its manifest has version None"):
        manifests.parse(b"{}")
