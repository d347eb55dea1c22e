"""Any program can ask the mirror in SQL or by filter, in the format that it reads, and learns what it did not get."""

from __future__ import annotations

import io
import json

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror.web import doors, query_api
from tests.query.conftest import published  # noqa: F401 - a fixture
from tests.web.door import opened

PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def door(published):  # noqa: F811
    with opened(published) as door:
        yield door


HARD = "SELECT 1 AS n, 'a\"b' AS t, 0.5::DOUBLE AS x, 'nan'::DOUBLE AS nan, [1, 2] AS l, NULL::INTEGER AS nothing"


def test_json_is_one_object_with_typed_columns(door):
    answer = door.query({"sql": HARD})
    assert answer.status_code == 200
    found = answer.json()
    assert found.pop("as_of") == "2026-02-01T00:00:00.000Z"
    assert found.pop("lag_s") > 0
    assert found == {
        "columns": [
            {"name": "n", "type": "INTEGER"},
            {"name": "t", "type": "VARCHAR"},
            {"name": "x", "type": "DOUBLE"},
            {"name": "nan", "type": "DOUBLE"},
            {"name": "l", "type": "INTEGER[]"},
            {"name": "nothing", "type": "INTEGER"},
        ],
        "rows": [[1, 'a"b', 0.5, "NaN", [1, 2], None]],
        "row_count": 1,
        "truncated": False,
    }
    kept = {name: value for name, value in answer.headers.items() if name.startswith("x-mirror") and "lag" not in name}
    assert kept == {
        "x-mirror-as-of": "2026-02-01T00:00:00.000Z",
        "x-mirror-rows": "1",
        "x-mirror-truncated": "false",
        "x-mirror-limit": "10000",
    }


def test_a_union_and_other_odd_types_reach_arrow(door):
    """The last batch, which has no rows, needs an empty column of each type."""
    odd = "SELECT union_value(n := 1) AS u, MAP {'a': [1]} AS m, {'x': 1, 'y': NULL} AS s, [[1]] AS l, 'a'::ENUM('a') AS e"
    answer = door.query({"sql": odd}, accept=ARROW)
    assert answer.status_code == 200
    found = pa.ipc.open_stream(answer.content).read_all()
    assert found.to_pylist() == [{"u": 1, "m": [("a", [1])], "s": {"x": 1, "y": None}, "l": [[1]], "e": "a"}]


def test_every_format_has_the_same_rows(door):
    steps = {"sql": "SELECT step, value FROM history WHERE key = $key AND run_id = 'alpha' ORDER BY step LIMIT 3"}
    asked = {**steps, "parameters": {"key": "loss"}}
    rows = [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert door.query(asked).json()["rows"] == [list(row) for row in rows]
    lines = door.query(asked, "application/x-ndjson")
    assert [json.loads(line) for line in lines.text.splitlines()] == [{"step": s, "value": v} for s, v in rows]
    csv = door.query(asked, "text/csv")
    assert csv.text == "step,value\n0,1.0\n1,0.5\n2,0.3333333333333333\n"
    assert csv.headers["content-type"] == "text/csv; charset=utf-8"
    table = pa.ipc.open_stream(door.query(asked, ARROW).content).read_all()
    assert list(zip(*table.to_pydict().values(), strict=True)) == rows
    assert pq.read_table(io.BytesIO(door.query(asked, PARQUET).content)).to_pydict() == table.to_pydict()


def test_accept_chooses_the_format(door):
    kinds = {
        "": "application/json",
        "*/*": "application/json",
        "text/html, application/xhtml+xml, */*;q=0.8": "application/json",
        "application/json;q=0.5, text/csv": "text/csv; charset=utf-8",
        "application/jsonl": "application/x-ndjson",
        f"{ARROW}, */*;q=0.1": ARROW,
    }
    given = {accept: door.query({"sql": "SELECT 1"}, accept).headers["content-type"] for accept in kinds}
    assert given == kinds
    refused = door.query({"sql": "SELECT 1"}, "image/png")
    assert (refused.status_code, refused.json()["error"]) == (406, "there is no answer as image/png")


def test_an_answer_that_was_cut_says_so_in_every_format(door):
    asked = {"sql": "SELECT range AS n FROM range(5)", "limit": 3}
    found = door.query(asked)
    assert (found.json()["rows"], found.json()["row_count"], found.json()["truncated"]) == ([[0], [1], [2]], 3, True)
    for accept in query_api.MEDIA:
        headers = door.query(asked, accept).headers
        assert (headers["x-mirror-rows"], headers["x-mirror-truncated"]) == ("3", "true"), accept
    assert door.query({**asked, "limit": 5}).json()["truncated"] is False
    assert door.query({**asked, "limit": 0}).json()["rows"] == []


def test_a_long_answer_says_at_its_end_what_it_left_out(door):
    asked = {"sql": "SELECT range AS n, repeat('x', 100) AS t FROM range(30000)", "limit": 20000}
    answer = door.query(asked)
    assert "x-mirror-rows" not in answer.headers
    assert answer.headers["x-mirror-limit"] == "20000"
    found = answer.json()
    assert (len(found["rows"]), found["row_count"], found["truncated"]) == (20000, 20000, True)
    reader = pa.ipc.open_stream(door.query(asked, ARROW).content)
    batches = []
    while True:
        try:
            batches.append(reader.read_next_batch_with_custom_metadata())
        except StopIteration:
            break
    assert sum(len(batch) for batch, _ in batches) == 20000
    assert (len(batches[-1][0]), dict(batches[-1][1])) == (
        0,
        {b"mirror.as_of": b"2026-02-01T00:00:00.000Z", b"mirror.rows": b"20000", b"mirror.truncated": b"true"},
    )
    parquet = pq.ParquetFile(io.BytesIO(door.query(asked, PARQUET).content))
    assert (parquet.metadata.num_rows, parquet.metadata.metadata[b"mirror.truncated"]) == (20000, b"true")


def test_runs_by_filter(door):
    asked = {
        "project": "team/vision",
        "filter": {"config.lr": {"$lt": 0.1}},
        "order": "-config.lr",
        "select": ["run_id", "config.lr", "config"],
        "limit": 1,
    }
    found = door.query(asked).json()
    assert found["columns"] == [
        {"name": "run_id", "type": "VARCHAR"},
        {"name": "config.lr", "type": "DOUBLE"},
        {"name": "config", "type": "VARCHAR"},
    ]
    assert found["rows"] == [["beta", 0.05, {"lr": 0.05, "layers": 1, "mixed": "x", "flag": True}]]
    assert found["truncated"] is True


def test_a_plan_is_rows_too(door):
    assert door.query({"sql": "EXPLAIN SELECT 1"}).json()["columns"] == [{"name": "plan", "type": "VARCHAR"}]


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("DROP TABLE runs", "DROP is refused, the mirror is read-only: use SELECT"),
        ("SET memory_limit = '9GB'", "SET is refused"),
        ("PRAGMA threads = 8", "PRAGMA is refused"),
        ("ATTACH '/tmp/other.duckdb'", "ATTACH is refused"),
        ("COPY runs TO '/tmp/runs.csv'", "COPY is refused"),
        ("INSTALL httpfs", "INSTALL is refused"),
        ("CALL duckdb_settings()", "CALL is refused"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Permission Error"),
        ("SELECT * FROM read_text('/etc/hostname')", "Permission Error"),
        ("SELECT * FROM glob('/etc/*')", "Permission Error"),
        ("SELECT * FROM 'https://example.com/a.parquet'", ""),
    ],
)
def test_sql_that_does_more_than_read_the_mirror_is_refused(door, sql, error):
    answer = door.query({"sql": sql})
    found = answer.json()
    assert (answer.status_code, sorted(found)) == (403, ["error", "hint"]), found
    assert found["error"].startswith(error)
    assert answer.text.count("\n") == 1


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        ([], 400, "the body must be a JSON object with either sql or project"),
        (
            {"sql": "SELECT 1", "project": "team/vision"},
            400,
            "the body must be a JSON object with either sql or project",
        ),
        ({"sql": 1}, 400, "sql must be a text"),
        ({"sql": "SELECT 1", "limit": True}, 400, "limit must be a whole number"),
        ({"sql": "SELECT 1", "limit": -1}, 400, "limit must be from 0 to 100,000,000"),
        ({"sql": "SELECT 1", "timeout": 601}, 400, "timeout must be more than 0 and at most 600 seconds"),
        ({"sql": "SELECT 1", "order": "name"}, 400, "order does not go with sql"),
        ({"sql": "SELECT 1", "limt": 1}, 400, "limt is not a member of a query"),
        ({"project": "team/vision", "select": [1]}, 400, "select must be a list of columns"),
        ({"project": "team/visoin"}, 404, "no project team/visoin in the mirror"),
        ({"project": "team/vision", "filter": {"$or": 1}}, 400, "$or 1: $or takes a list of filters"),
        ({"sql": "SELECT nme FROM runs"}, 400, 'Binder Error: Referenced column "nme" not found'),
        ({"sql": "SELECT ?"}, 400, ""),
        ({"sql": "SELECT 1; SELECT 2"}, 400, "one statement at a time, not 2"),
        ({"sql": "SELECT '\ud800'"}, 400, ""),
        ({"sql": "SELECT sum(range) FROM range(1000000000000)", "timeout": 0.2}, 504, "this took longer than 0.2 s"),
    ],
)
def test_what_is_wrong_is_one_line_with_a_hint(door, asked, status, error):
    answer = door.ask("POST", "/api/query", content=json.dumps(asked))
    found = answer.json()
    assert (answer.status_code, sorted(found)) == (status, ["error", "hint"]), found
    assert found["error"].startswith(error)
    assert found["hint"]
    assert answer.text.count("\n") == 1


def test_a_body_that_is_no_json_or_too_long_is_refused(door):
    assert door.ask("POST", "/api/query", content="SELECT 1").status_code == 400
    long = door.ask("POST", "/api/query", content=json.dumps({"sql": "x" * 1_000_000}))
    assert (long.status_code, long.json()["error"]) == (413, "a request may have at most 1,000,000 bytes")


def test_an_answer_is_not_sent_again_to_who_has_it(door):
    asked = {"sql": "SELECT count(*) FROM runs"}
    etag = door.query(asked).headers["etag"]
    again = door.ask("POST", "/api/query", json=asked, headers={"If-None-Match": f'"x", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert door.query(asked, "text/csv").headers["etag"] != etag
    assert door.query({**asked, "limit": 1}).headers["etag"] != etag


def test_a_stream_that_fails_half_way_is_not_taken_for_complete(door):
    failing = "SELECT CASE WHEN range = 300000 THEN error('half-way') ELSE repeat('x', 20) END AS t FROM range(400000)"
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        door.query({"sql": failing, "limit": 1_000_000}, "text/csv")


def test_the_schema_has_every_relation_with_its_columns(door):
    found = {relation["name"]: relation for relation in door.ask("GET", "/api/schema").json()}
    assert {"runs", "history", "projects", "team/vision"} <= set(found)
    columns = {column["name"]: column for column in found["runs"]["columns"]}
    assert columns["state"]["type"] == "VARCHAR"
    assert "crashed" in columns["state"]["comment"]
    etag = door.ask("GET", "/api/schema").headers["etag"]
    assert door.ask("GET", "/api/schema", headers={"If-None-Match": etag}).status_code == 304


def test_the_openapi_document_has_exactly_the_routes_that_there_are(door):
    document = door.ask("GET", "/api/openapi.json").json()
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    there = {
        (route.path, method)
        for route in doors.application(door.listener.access).routes
        for method in route.methods - {"HEAD"}
    }
    assert described == there
    media = document["paths"]["/api/query"]["post"]["responses"]["200"]["content"]
    assert set(media) == set(query_api.MEDIA) - {"application/jsonl"}
    (of_sql, of_filter) = document["paths"]["/api/query"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]["oneOf"]
    assert {*of_sql["properties"], *of_filter["properties"]} == set(query_api._MEMBERS)


def test_answers_have_the_members_and_headers_that_the_document_names(door):
    document = door.ask("GET", "/api/openapi.json").json()
    good = document["paths"]["/api/query"]["post"]["responses"]["200"]
    answer = door.query({"sql": "SELECT 1"})
    assert list(answer.json()) == good["content"]["application/json"]["schema"]["required"]
    assert {name.lower() for name in good["headers"]} <= set(answer.headers)
    error = document["components"]["schemas"]["Error"]
    assert list(door.query({}).json()) == error["required"] == list(error["properties"])
    relation = document["paths"]["/api/schema"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert list(door.ask("GET", "/api/schema").json()[0]) == list(relation["items"]["properties"])


def test_a_failed_answer_has_a_status_that_the_document_names(door):
    named = set(door.ask("GET", "/api/openapi.json").json()["paths"]["/api/query"]["post"]["responses"])
    for asked in ([], {"sql": "DROP TABLE runs"}, {"project": "a/b"}):
        assert str(door.ask("POST", "/api/query", json=asked).status_code) in named
    assert str(door.ask("POST", "/api/query", token="").status_code) in named


def test_what_is_not_there_is_answered_in_the_same_form(door):
    for method, path, status in (("GET", "/api/query", 404), ("GET", "/api/query/x", 404)):
        answer = door.ask(method, path)
        assert (answer.status_code, sorted(answer.json())) == (status, ["error", "hint"])
