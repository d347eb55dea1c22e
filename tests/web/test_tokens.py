"""Tokens read what they may read, and nothing else, in whatever SQL; they change nothing."""

from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from mirror import serve
from mirror.errors import StoreError, UsageError
from mirror.serve import app as sdk
from mirror.settings import tokens as module
from mirror.settings.home import Home
from mirror.settings.tokens import Tokens
from mirror.snapshot import scoped
from mirror.store import projects
from mirror.store.store import Store
from mirror.web import doors
from mirror.web import scopes as scopes_module
from mirror.web.app import application
from mirror.web.listener import Neighbour
from mirror.web.scopes import Scopes
from tests.query.conftest import VISION, publish
from tests.web import stuck
from tests.web.door import opened

API_KEY = "b" * 40
KINDS = ("none", "wrong", "revoked", "expired", "other project", "right", "all projects", "the home's own")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A mirror of team/vision and team/nlp, whose history is in segments."""
    return publish(tmp_path_factory.mktemp("tokens") / "mirror", tail_values=1)


def publish_again(home):
    store = Store.open(home)
    with store.transaction() as tx:
        projects.record_success(tx, VISION, datetime(2026, 3, 1))
    store.publish()
    store.close()


def endpoint(access):
    """The endpoint for the official SDK, whose server cannot be reached."""
    return sdk.application(
        access.page, lambda: API_KEY, lambda: sdk.Policy("http://127.0.0.1:9"), lambda _: None, access
    )


@pytest.fixture(scope="module")
def door(home):
    with opened(home, neighbour=Neighbour(serve.PATHS, endpoint)) as door:
        yield door


@pytest.fixture(scope="module")
def secrets(home):
    """A token of each kind, for team/vision."""
    tokens = Tokens(home.tokens)
    made = {"none": "", "wrong": "f" * 40}
    made["revoked"] = tokens.add("revoked", ["team/vision"], None)
    tokens.revoke("revoked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_now", lambda: datetime.now(UTC) - timedelta(days=2))
        made["expired"] = tokens.add("expired", ["team/vision"], 1)
    made["other project"] = tokens.add("other", ["team/n*"], 30)
    made["right"] = tokens.add("right", ["team/v*"], 30)
    made["all projects"] = tokens.add("everything", [], None)
    made["the home's own"] = None
    return made


ASKED = {"project": "team/vision", "select": ["run_id"], "limit": 1}
TABLE = {
    ("POST", "/api/query"): (401, 401, 401, 401, 403, 200, 200, 200),
    ("POST", "/api/statements"): (401, 401, 401, 401, 200, 200, 200, 200),
    ("GET", "/api/content"): (401, 401, 401, 401, 404, 404, 404, 404),
    ("GET", "/api/schema"): (401, 401, 401, 401, 200, 200, 200, 200),
    ("GET", "/api/openapi.json"): (401, 401, 401, 401, 200, 200, 200, 200),
    **{
        ("GET", f"/api/{name}"): (401, 401, 401, 401, 401, 401, 401, status)
        for name, status in {
            **dict.fromkeys(("state", "history/keys", "history"), 200),
            **dict.fromkeys(("keys", "runs", "run", "run/files", "run/console", "run/system", "groups"), 400),
        }.items()
    },
    ("GET", "/page.js"): (401, 401, 401, 401, 401, 401, 401, 200),
    ("GET", "/locked.css"): (200,) * 8,
    ("POST", "/api/sql"): (401, 401, 401, 401, 401, 401, 401, 200),
    ("GET", "/"): (401, 401, 401, 401, 401, 401, 401, 200),
    ("POST", "/graphql"): (401, 401, 401, 401, 400, 200, 200, 401),
    ("GET", "/files/team/vision/alpha/none.txt"): (401, 401, 401, 401, 400, 400, 400, 401),
    ("PUT", "/files/team/vision/alpha/none.txt"): (401, 401, 401, 401, 403, 403, 403, 401),
    ("GET", "/artifacts/x"): (401, 401, 401, 401, 400, 400, 400, 401),
    ("GET", "/artifactsV2/x"): (401, 401, 401, 401, 400, 400, 400, 401),
    ("GET", "/artifact-manifests/x"): (401, 401, 401, 401, 404, 404, 404, 401),
}
RUN = {
    "query": "query R($e: String!, $p: String!) { project(name: $p, entityName: $e) { runs(first: 1) { totalCount } } }",
    "variables": {"e": "team", "p": "vision"},
}
BODIES = {"/api/query": ASKED, "/graphql": RUN}


def asked_as(door, secrets, kind, method, path):
    """Ask as the clients of this path do: the official one sends its key as a password."""
    body = {"json": BODIES.get(path, {"sql": "SELECT 1"})} if method in ("POST", "PUT") else {}
    secret = secrets[kind]
    if not path.startswith(serve.PATHS) or secret == "":
        return door.ask(method, path, secret, **body)
    return door.ask(method, path, "", auth=("api", secret or door.token), **body)


@pytest.mark.parametrize(("method", "path"), TABLE)
def test_every_route_answers_each_kind_of_token_as_it_should(door, secrets, method, path):
    given = {kind: asked_as(door, secrets, kind, method, path) for kind in KINDS}
    assert {kind: answer.status_code for kind, answer in given.items()} == dict(
        zip(KINDS, TABLE[method, path], strict=True)
    )


def test_what_is_wrong_with_a_token_is_said(door, secrets):
    errors = {kind: door.ask("GET", "/api/schema", secrets[kind]).json()["error"] for kind in KINDS[:4]}
    assert errors == {
        "none": "the token is missing",
        "wrong": "the token is wrong",
        "revoked": "the token revoked is revoked",
        "expired": "the token expired is expired",
    }


def rows(door, secret, sql):
    answer = door.query({"sql": sql}, token=secret)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


def test_a_limited_token_reads_its_projects_as_they_are(door, secrets, home):
    sql = "SELECT run_id, step, key, value FROM history WHERE project = 'vision' ORDER BY ALL"
    assert rows(door, secrets["right"], sql) == rows(door, None, sql)
    assert rows(door, secrets["right"], 'SELECT count(*) FROM "team/vision"') == [[5]]
    relations = {
        who: {relation["name"]: relation for relation in door.ask("GET", "/api/schema", secrets[who]).json()}
        for who in ("right", "the home's own")
    }
    assert relations["right"] == {
        name: about for name, about in relations["the home's own"].items() if name != "team/nlp"
    }
    assert list(home.history.rglob("project=nlp/*.parquet"))


def test_a_limited_token_finds_no_other_project_in_any_relation(door, secrets):
    for relation in [relation["name"] for relation in door.ask("GET", "/api/schema").json()]:
        if relation == "team/nlp":
            continue
        sql = f"SELECT count(*) FROM \"{relation}\" AS r WHERE contains(CAST(r AS VARCHAR), 'nlp')"
        assert rows(door, secrets["right"], sql) == [[0]], relation
    assert rows(door, secrets["right"], "SELECT entity, project, runs FROM projects") == [["team", "vision", 4]]
    assert rows(door, secrets["right"], "SELECT DISTINCT project FROM history") == [["vision"]]


def test_a_limited_token_reaches_nothing_else_by_any_statement(door, secrets, home):
    (other, *_) = home.history.rglob("project=nlp/*.parquet")
    own = home.history / "entity=team" / "project=vision"
    for source in (
        'SELECT * FROM "team/nlp"',
        f"SELECT * FROM read_parquet('{other}')",
        f"SELECT * FROM read_parquet('{own}/../project=nlp/*')",
        f"SELECT * FROM read_parquet('{home.history}/*/*/*')",
        f"SELECT * FROM read_blob('{home.published}')",
        f"SELECT * FROM read_text('{home.tokens}')",
        f"SELECT * FROM glob('{home.data}/**')",
        f"ATTACH '{home.published}' AS all_of_it",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
    ):
        answer = door.query({"sql": source}, token=secrets["right"])
        assert answer.status_code in (400, 403), source
    assert rows(door, secrets["right"], "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'wide_2'") == [[0]]


def test_the_copy_has_no_byte_of_another_project(home, tmp_path):
    scope = Home(home.data, home.config, tmp_path / "scope")
    scoped.make(scope, ["team/vision"])
    content = scope.published.read_bytes()
    assert (b"team/vision" in content, b"team/nlp" in content, b"bob" in content) == (True, False, False)
    assert stat.S_IMODE(scope.published.stat().st_mode) == 0o600
    assert [file.name for file in scope.published.parent.iterdir()] == ["mirror.duckdb"]


def test_every_table_of_the_store_belongs_to_a_project_or_is_decided_by_name(home):
    with duckdb.connect(str(home.published), read_only=True) as connection:
        tables = connection.execute(
            "SELECT table_name, list(column_name) FROM duckdb_columns() WHERE schema_name = 'store' "
            "AND table_name IN (SELECT table_name FROM duckdb_tables()) GROUP BY table_name"
        ).fetchall()
    assert len(tables) > 40
    for table, columns in tables:
        scoped.condition(table, columns)
    with pytest.raises(LookupError, match=r"does not say which rows of store\.secrets belong"):
        scoped.condition("secrets", ["key", "value"])


def test_a_token_for_projects_that_are_not_mirrored_reads_empty_relations(door, home):
    secret = Tokens(home.tokens).add("early", ["later/*"], None)
    assert rows(door, secret, "SELECT * FROM runs") == []
    answer = door.query({"project": "later/one"}, token=secret)
    assert (answer.status_code, answer.json()["error"]) == (
        404,
        "no project later/one in the mirror, which holds no project yet: run `mirror sync`",
    )
    Tokens(home.tokens).revoke("early")
    assert door.query({"sql": "SELECT 1"}, token=secret).status_code == 401


def test_a_copy_follows_the_published_file_and_goes_with_the_daemon(tmp_path):
    home = publish(tmp_path / "mirror")
    scopes = Scopes(home)
    first = scopes.newest(["team/vision"])
    assert scopes.current(["team/vision"]) is first
    version = first.version()
    assert scopes.newest(["team/vision"]).version() == version
    publish_again(home)
    (made,) = scopes._scopes.values()
    assert made.is_current(scopes._version())
    made.cost = 0.0
    assert scopes.current(["team/vision"]) is None
    assert scopes.former(["team/vision"]) == (None, False)
    made.cost = 60.0
    assert scopes.former(["team/vision"]) == (first, False)
    made.cost = 0.0
    assert scopes.newest(["team/vision"]).version() != version
    scopes.close()
    assert not home.scopes.exists()


def test_a_copy_that_is_not_done_does_not_keep_the_daemon(tmp_path, monkeypatch):
    home = publish(tmp_path / "mirror")
    monkeypatch.setattr(scopes_module, "scoped", stuck)
    scopes = Scopes(home)
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(scopes.newest, ["team/vision"])
        while not scopes._copying:
            threading.Event().wait(0.01)
        scopes.stop()
        with pytest.raises(StoreError, match="the daemon is stopping"):
            waits.result(20)


def test_a_copy_that_fails_is_an_error_with_the_reason(tmp_path, caplog):
    home = Home(tmp_path, tmp_path / "config.toml")
    (tmp_path / "mirror.duckdb").write_text("not a database")
    with pytest.raises(StoreError, match=r"the copy for readers of team/vision cannot be made \(.*\); see the log"):
        Scopes(home).newest(["team/vision"])
    assert "the copy for readers of team/vision cannot be made: " in caplog.text


def test_a_token_is_accepted_under_any_name_of_the_machine_and_as_a_password(door, secrets):
    elsewhere = {"Host": "mirror.example.com"}
    assert door.ask("GET", "/api/schema", secrets["right"], elsewhere).status_code == 200
    assert door.ask("GET", "/api/schema", "", elsewhere).status_code == 421
    assert door.ask("GET", "/api/schema", secrets["wrong"], elsewhere).status_code == 401
    assert door.ask("GET", "/api/state", None, elsewhere).status_code == 421
    assert door.ask("GET", "/api/schema", "", auth=("api", secrets["right"])).status_code == 200
    foreign = door.ask("GET", "/api/schema", secrets["right"], {"Origin": "http://evil.example"})
    assert (foreign.status_code, foreign.json()["error"]) == (403, "requests from other origins are refused")


def test_the_last_use_is_recorded_now_and_then(home, monkeypatch):
    tokens = Tokens(home.tokens)
    secret = tokens.add("used", [], None)
    assert tokens.find(secret).last_used_at is None
    now = datetime(2027, 1, 1, 12, tzinfo=UTC)
    for minutes, noted in ((0, 0), (5, 0), (11, 11)):
        monkeypatch.setattr(module, "_now", lambda minutes=minutes: now + timedelta(minutes=minutes))
        tokens.note_use(tokens.find(secret))
        assert tokens.find(secret).last_used_at == now + timedelta(minutes=noted)


def test_the_file_has_hashes_for_its_owner_alone(home):
    tokens = Tokens(home.tokens)
    secret = tokens.add("hashed", ["team/*"], 7)
    assert (len(secret), secret in home.tokens.read_text()) == (40, False)
    assert stat.S_IMODE(home.tokens.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="there is a token hashed already"):
        tokens.add("hashed", [], None)
    tokens.revoke("hashed")
    assert tokens.add("hashed", [], None) != secret


def test_a_file_that_is_no_list_of_tokens_lets_nobody_in_but_the_owner(home):
    good = home.tokens.read_text()
    with opened(home) as door:
        try:
            home.tokens.write_text("{")
            answer = door.ask("GET", "/api/schema", "f" * 40)
            assert (answer.status_code, answer.json()) == (
                503,
                {
                    "error": f"cannot read {home.tokens}: it is not a file of tokens",
                    "hint": "move it away to start without tokens",
                },
            )
            assert door.ask("GET", "/api/schema").status_code == 200
        finally:
            home.tokens.write_text(good)


def test_the_table_above_has_every_route(door):
    access = door.listener.access
    routes = doors.application(access).routes + application(access.page, "", dict).routes + endpoint(access).routes
    asked = [path for _, path in TABLE]
    for route in routes:
        assert any(route.path_regex.match(path) for path in asked), route.path


def test_a_token_reads_runs_through_the_endpoint_and_changes_none(door, secrets):
    def graphql(text, secret):
        return door.ask("POST", "/graphql", "", auth=("api", secret), json={"query": text, "variables": {}}).json()

    runs = '{ project(name: "%s", entityName: "team") { runs(first: 9) { totalCount edges { node { name } } } } }'
    found = graphql(runs % "vision", secrets["right"])["data"]["project"]["runs"]
    assert found["totalCount"] == 4
    assert graphql(runs % "nlp", secrets["right"])["errors"] == [
        {
            "message": "the mirror does not serve this (the project team/nlp is not mirrored), "
            "and a token of the mirror reads only what is mirrored"
        }
    ]
    assert graphql(runs % "nlp", secrets["other project"])["data"]["project"]["runs"]["totalCount"] == 1
    write = graphql('mutation { deleteRun(input: {id: "x"}) { clientMutationId } }', secrets["right"])
    assert write["errors"] == [
        {"message": "a token of the mirror only reads; unset WANDB_BASE_URL and use your own key to write"}
    ]
