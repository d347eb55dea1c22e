"""What the page asks for: the newest snapshot, exact values, one-line errors, and limits."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mirror.errors import StoreError
from mirror.settings.home import Home
from mirror.snapshot import pool as module
from mirror.web.app import application
from mirror.web.snapshots import Snapshots
from tests.query.conftest import published, segmented  # noqa: F401 - fixtures
from tests.web.conftest import log_curve

pytestmark = pytest.mark.xdist_group("site")


def test_projects_with_their_freshness(site):
    found = site.get("/api/state")
    projects = {each["project"]: (each["runs"], each["running"], each["last_error"]) for each in found["projects"]}
    assert projects == {"team/vision": (13, 1, None), "team/language": (1, 0, None)}
    assert found["daemon"]["base_url"] == site.server.url
    assert site.server.key not in str(found)


def test_runs_by_filter_and_order_page_by_page(site):
    asked = {"project": "team/vision", "filter": '{"config.opt.name": "adam"}', "order": "-config.lr"}
    found = site.get("/api/runs", **asked, column=["name", "config.lr", "summary.acc"], offset=1, limit=2)
    assert found == {
        "total": 6,
        "offset": 1,
        "warnings": [],
        "columns": ["run_id", "name", "config.lr", "summary.acc"],
        "numeric": [False, False, True, True],
        "rows": [["run03", "run 3", "0.001", "0.3"], ["run05", "run 5", "1e-05", "0.5"]],
        "cut": False,
    }


def test_keys_and_how_runs_are_ordered_by_them(site):
    found = site.get("/api/keys", project="team/vision")
    assert {"name": "name", "order": "display_name"} in found["columns"]
    assert {"name": "history_rows", "order": None} in found["columns"]
    keys = {each["name"]: each for each in found["keys"]}
    assert keys["config.lr"] == {"name": "config.lr", "runs": 13, "order": "config.lr", "varied": True}
    assert keys["summary.acc"]["order"] == "summary_metrics.acc"


def test_what_is_unknown_is_reported_beside_what_is_not(site):
    """In filter, order, columns, metrics and the x axis; with the nearest name."""
    found = site.get(
        "/api/runs",
        project="team/vision",
        filter='{"config.lrr": 1}',
        order="-config.optname",
        column=["name", "nam", "config.op.name"],
    )
    assert (found["columns"], found["total"]) == (["run_id", "name", "config.op.name"], 0)
    assert found["warnings"] == [
        "config key 'lrr' is in no run; did you mean 'lr'?",
        "config key 'optname' is in no run; did you mean 'opt.name'?",
        "runs have no column nam; did you mean name?",
        "config key 'op.name' is in no run; did you mean 'opt.name'?",
    ]
    runs = ["team/vision/run03", "team/language/other"]
    found = site.get("/api/history", run=runs, key=["loss", "ac"], x="acc")
    assert [curve["key"] for curve in found["curves"]] == ["loss"]
    assert found["warnings"] == [
        "none of these runs logged numbers under ac; did you mean acc?",
        "only 1 of 2 runs logged acc, the x axis; the others are not drawn",
    ]


def test_groups_are_means_of_all_runs_that_match(site):
    """By the rule of `mirror plot`: with n, up to where fewer than half of the runs have values."""
    asked = {"project": "team/vision", "key": "loss", "group": "config.opt.name"}
    found = site.get("/api/groups", **asked)
    assert found["groups"] == [
        {"label": "adam", "runs": 6},
        {"label": "sgd", "runs": 6},
        {"label": "not set", "runs": 1},
    ]
    adam = found["curves"][0]
    assert (adam["group"], adam["runs"], adam["n"], adam["ends_early"]) == ("adam", 6, [6] * 20, False)
    assert adam["y"] == pytest.approx([1.0 / (step + 1) for step in range(20)])
    some = site.get("/api/groups", **asked, filter='{"config.lr": {"$lt": 0.01}}', x="acc")
    assert [group["runs"] for group in some["groups"]] == [5, 4]
    assert some["curves"][0]["x"] == pytest.approx([step / 100 for step in range(20)])
    two = site.get("/api/groups", **asked, run=["team/vision/run03", "team/vision/run02"])
    assert [(group["label"], group["runs"]) for group in two["groups"]] == [("adam", 1), ("sgd", 1)]


def test_one_run_with_its_documents(site):
    found = site.get("/api/run", run="team/vision/run03")
    assert (found["name"], found["state"], found["history_rows"]) == ("run 3", "finished", 20)
    assert found["config"] == [["lr", "0.001"], ["opt.name", "adam"]]
    assert found["metadata"] == [["host", "node1"]]
    files = site.get("/api/run/files", run="team/vision/run03")
    assert [(file["name"], file["size"]) for file in files["files"]] == [("model.pt", 3), ("wandb-metadata.json", 17)]
    assert site.get("/api/run/files", run="team/vision/run03", start=1)["total"] == 2
    console = site.get("/api/run/console", run="team/vision/run03")
    assert (console["total"], console["earlier"]) == (2, False)
    assert [line["text"] for line in console["lines"]] == ["epoch 1", "epoch 2"]
    assert site.get("/api/run/console", run="team/vision/run03", before=1)["lines"][0]["text"] == "epoch 1"
    (cpu,) = site.get("/api/run/system", run="team/vision/run03")
    assert (cpu["key"], cpu["y"]) == ("system.cpu", [40.0, 41.0, 42.0])


def test_terms_find_the_runs_of_their_json(site):
    """A line of terms in place of a JSON filter."""
    asked = {"project": "team/vision", "order": "+created_at", "column": "name"}
    of_terms = site.get("/api/runs", filter="config.lr>0 state=finished", **asked)
    of_json = site.get("/api/runs", filter='{"config.lr": {"$gt": 0}, "state": "finished"}', **asked)
    assert of_terms == of_json
    assert of_terms["total"] > 0


def test_curves_of_several_runs(site):
    runs = ["team/vision/run03", "team/vision/run05"]
    found = site.get("/api/history/keys", run=[*runs, "team/vision/rum03"])
    assert {each["name"]: each["runs"] for each in found["keys"] if not each["name"].startswith("_")} == {
        "loss": 2,
        "acc": 2,
    }
    assert found["names"] == {"team/vision/run03": "run 3", "team/vision/run05": "run 5"}
    (missing,) = found["warnings"]
    assert missing.startswith("no run team/vision/rum03 in the mirror; did you mean team/vision/run0")
    first, second = site.get("/api/history", run=runs, key="loss")["curves"]
    assert first == {
        "run": "team/vision/run03",
        "key": "loss",
        "x_key": "_step",
        "x": list(range(20)),
        "y": [1.0 / (step + 1) for step in range(20)],
        "rows": 20,
        "not_finite": 0,
    }
    assert second["run"] == "team/vision/run05"


@pytest.mark.parametrize(
    ("path", "parameters", "message"),
    [
        (
            "/api/runs",
            {"project": "team/vision", "filter": '{"stat": 1}'},
            "unknown field 'stat'; did you mean 'state'?",
        ),
        ("/api/runs", {"project": "team/vision", "filter": "{"}, "not valid JSON"),
        ("/api/runs", {"project": "team/vision", "order": "nonsense"}, "order 'nonsense': unknown field"),
        ("/api/runs", {"project": "team/vision", "column": "nonsense"}, "runs have no column nonsense"),
        ("/api/runs", {"project": "team/visio"}, "no project team/visio in the mirror; did you mean team/vision?"),
        ("/api/runs", {}, "project is missing"),
        ("/api/runs", {"project": "team/vision", "limit": "-1"}, "limit must be a whole number"),
        ("/api/run", {"run": "team/vision/none"}, "no run team/vision/none in the mirror"),
        (
            "/api/history",
            {"run": "team/vision/run03", "key": "los"},
            "none of these runs logged numbers under los; did you mean loss?",
        ),
        (
            "/api/history",
            {"run": "team/vision/run03", "key": "loss", "x": "ac"},
            "none of these runs logged numbers under ac, the x axis; did you mean acc?",
        ),
        ("/api/history", {"run": "team/language/other", "key": "loss"}, "these runs logged no numbers"),
        (
            "/api/groups",
            {"project": "team/vision", "group": "config.opt.nam", "key": "loss"},
            "cannot group: config key 'opt.nam' is in no run; did you mean 'opt.name'?",
        ),
        ("/api/groups", {"project": "team/vision", "group": "stat"}, "runs have no column stat; did you mean state?"),
        ("/api/groups", {"project": "team/vision", "group": "sweep"}, "cannot group: none of these runs has sweep"),
        ("/api/history", {"run": "nonsense", "key": "loss"}, "nonsense is not a run path"),
        ("/api/history", {"run": "a/b/c", "key": "loss", "points": "1"}, "points must be from 2"),
        ("/api/history", {"run": [f"a/b/{i}" for i in range(101)], "key": "loss"}, "at most 100 runs"),
    ],
)
def test_what_cannot_be_is_one_line(site, path, parameters, message):
    with site.client(Authorization=f"Bearer {site.token}") as client:
        answer = client.get(path, params=parameters)
    assert answer.status_code == 400
    assert message in answer.json()["message"]
    assert "\n" not in answer.json()["message"]


def test_sql_reads_and_nothing_else(site):
    found = site.sql_rows("select run_id, config from runs where run_id = 'run03';").json()
    assert found["rows"] == [["run03", '{"lr":0.001,"opt":{"name":"adam"}}']]
    secret = site.home / "web.token"
    for text, said in (
        ("delete from runs", "DELETE is refused"),
        ("select 1; select 2", "one statement at a time"),
        (f"select * from read_text('{secret}')", "Permission Error"),
        (f"copy (select 1) to '{site.home}/x.csv'", "COPY is refused"),
        (f"attach '{site.home}/state.duckdb'", "ATTACH is refused"),
        ("set enable_external_access = true", "SET is refused"),
        ("select * from nowhere", "Table with name nowhere does not exist"),
        ("selec 1", "syntax error"),
        ("", "no SQL"),
    ):
        answer = site.sql_rows(text)
        assert answer.status_code == 400, text
        assert said in answer.json()["message"], answer.text
    assert site.sql_rows("select 1", limit="many").status_code == 400


def test_sql_rows_are_limited_and_that_is_reported(site):
    found = site.sql_rows("select range as n from range(5000)", limit=10).json()
    assert (len(found["rows"]), found["more"]) == (10, True)
    assert site.sql_rows("select range as n from range(10)", limit=10).json()["more"] is False
    assert len(site.sql_rows("select range as n from range(5000)", limit=5000).json()["rows"]) == 1000
    long = site.sql_rows("select repeat('x', 3000000) as t from range(100)").json()
    assert (len(long["rows"]) < 10, long["more"]) == (True, True)
    with site.client(Authorization=f"Bearer {site.token}") as client:
        assert "at most" in client.post("/api/sql", content=b"x" * 200_000).json()["message"]


def test_a_growing_run_is_seen_and_what_did_not_change_is_not_sent_again(site):
    with site.client(Authorization=f"Bearer {site.token}") as client:

        def rows():
            answer = client.get("/api/history", params={"run": "team/vision/live", "key": "loss"})
            return len(answer.json()["curves"][0]["x"]), answer.headers["etag"]

        before, etag = rows()
        log_curve(site.live, 3, start=before)
        site.pull()
        site.until(lambda: rows()[0] == before + 3)
        assert rows()[1] != etag

        def unchanged(path):
            known = client.get(path).headers["etag"]
            return client.get(path, headers={"If-None-Match": known}).status_code == 304

        # A pass may publish between the two.
        site.until(lambda: unchanged("/api/keys?project=team/vision"))
        site.until(lambda: unchanged("/api/state"))
    site.until(lambda: not list(site.home.glob(".mirror.duckdb*")))


class Served:
    """The application in this process, asked as over HTTP."""

    def __init__(self, home, **more):
        self.app = application(Snapshots(home), "a" * 40, dict, **more)

    def ask(self, method, path, headers=None, **more):
        async def once():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                sent = {"Authorization": f"Bearer {'a' * 40}", **(headers or {})}
                return await client.request(method, path, headers=sent, **more)

        return asyncio.run(once())

    def get(self, path, **more):
        return self.ask("GET", path, **more)

    def post(self, path, **more):
        return self.ask("POST", path, **more)


def test_other_applications_stand_behind_the_same_guard(published):  # noqa: F811
    async def hello(request):
        return PlainTextResponse("hello")

    client = Served(published, routes=[Route("/metrics", hello)])
    assert client.get("/metrics").text == "hello"
    assert client.get("/metrics", headers={"Authorization": ""}).status_code == 401
    assert client.get("/metrics", headers={"Host": "evil.example"}).status_code == 421


def test_a_query_that_takes_too_long_is_stopped(published):  # noqa: F811
    client = Served(published, seconds=0.5)
    slow = "select count(*) from range(100000000) a, range(100000) b where a.range + b.range = 7"
    answer = client.post("/api/sql", json={"sql": slow})
    assert (answer.status_code, answer.json()) == (504, {"message": "this took longer than 0.5 s and was stopped"})
    answer = client.post("/api/sql", json={"sql": f"explain analyze {slow}"})
    assert answer.status_code == 504
    assert client.post("/api/sql", json={"sql": "select 1 as one"}).status_code == 200


def test_history_in_segments_is_read_and_other_files_are_not(segmented):  # noqa: F811
    client = Served(segmented)
    (curve,) = client.get("/api/history", params={"run": "team/vision/alpha", "key": "loss"}).json()["curves"]
    assert curve["y"] == [1 / (step + 1) for step in range(10)]
    (segment, *_) = segmented.history.rglob("*.parquet")
    elsewhere = segmented.data / "copy.parquet"
    elsewhere.write_bytes(segment.read_bytes())
    answer = client.post("/api/sql", json={"sql": f"select count(*) from '{elsewhere}'"})
    assert "Permission Error" in answer.json()["message"]


def test_before_the_first_pass_there_is_an_empty_mirror(tmp_path):
    client = Served(Home(tmp_path, tmp_path / "config.toml"))
    assert client.get("/api/state").json() == {"snapshot": "", "daemon": {}, "projects": []}
    answer = client.get("/api/runs", params={"project": "team/vision"})
    assert (answer.status_code, answer.json()) == (400, {"message": "nothing is mirrored yet"})


def test_each_request_sees_the_newest_file_while_older_ones_go_on(tmp_path, published):  # noqa: F811
    home = Home(tmp_path, tmp_path / "config.toml")

    def publish(rows):
        import duckdb

        part = tmp_path / "part"
        with duckdb.connect(str(part)) as connection:
            connection.execute(f"create table t as from range({rows})")
        part.replace(home.published)

    count = "select count(*) from t"
    publish(1)
    snapshots = Snapshots(home)
    with snapshots.connection(10) as old:
        assert old.execute(count).fetchall() == [(1,)]
        publish(2)
        with snapshots.connection(10) as new:
            assert new.execute(count).fetchall() == [(2,)]
        assert old.execute(count).fetchall() == [(1,)]
    publish(3)
    found = []

    def ask():
        with snapshots.connection(10) as connection:
            found.extend(connection.execute(count).fetchall())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(3,)] * 8
    assert [path.name for path in tmp_path.iterdir()] == ["mirror.duckdb"]
    snapshots.close()


def test_a_query_does_not_hold_up_the_end_of_the_daemon(published):  # noqa: F811
    snapshots = Snapshots(published)
    said = []

    def ask():
        try:
            with snapshots.connection(60) as connection:
                connection.execute(
                    "select count(*) from range(100000000) a, range(100000) b where a.range + b.range = 7"
                )
        except StoreError as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    snapshots.close()
    thread.join(5)
    assert said == ["the daemon is stopping"]


def test_a_snapshot_that_nobody_asks_for_is_closed(published, monkeypatch):  # noqa: F811
    snapshots = Snapshots(published)
    with snapshots.connection(10) as connection:
        monkeypatch.setattr(module, "IDLE_SECONDS", 0.0)
        snapshots.close_idle()
        assert connection.execute("select 1").fetchall() == [(1,)]
    held = snapshots._current.connection
    snapshots.close_idle()
    with pytest.raises(Exception, match="closed"):
        held.execute("select 1")
    with snapshots.connection(10) as connection:
        assert connection.execute("select 1").fetchall() == [(1,)]
    snapshots.close()


def test_where_a_file_can_have_no_second_name_it_is_copied(published, monkeypatch):  # noqa: F811
    def refuse(self, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(module.Path, "hardlink_to", refuse)
    snapshots = Snapshots(published)
    with snapshots.connection(10) as connection:
        assert connection.execute("select count(*) from runs").fetchall() == [(6,)]
    snapshots.close()
    assert not list(published.data.glob(".mirror.duckdb*"))
