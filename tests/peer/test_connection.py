"""`mirror.connect(url)` reads a mirror on another machine as DuckDB reads a file here, or says why it cannot."""

from __future__ import annotations

import datetime as dt
import decimal
import http.server
import json
import math
import shutil
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import mirror
from mirror.api.peer_session import PeerSession
from mirror.errors import ArgumentError, AuthError, CommError, QueryError, StoreError
from mirror.peer import Peer
from mirror.settings.home import Home
from mirror.settings.tokens import Tokens
from mirror.snapshot import pins
from tests.peer.conftest import PROJECTS, Site
from tests.web.door import Door, opened
from tests.web.test_open_port import certificate

pytestmark = pytest.mark.xdist_group("peer")

HARD = """SELECT 170141183460469231731687303715884105727::HUGEINT AS huge, -5::HUGEINT AS small,
    '6aed987f-d12b-4c20-ae99-4dc95a7265ff'::UUID AS id, INTERVAL '1 month -2 days 3 seconds' AS span,
    TIMESTAMP '2020-01-01 01:02:03.5' AS at, TIMESTAMPTZ '2020-01-01 01:02:03+02' AS zoned, TIME '01:02' AS time,
    TIMESTAMP_NS '2020-01-01 01:02:03.123456789' AS ns, TIMESTAMP_S '2020-01-01 00:00:01' AS s, DATE '2020-01-01' AS day,
    1.25::DECIMAL(10, 3) AS money, 'nan'::DOUBLE AS nan, '-inf'::DOUBLE AS inf, 1.5::FLOAT AS single,
    18446744073709551615::UBIGINT AS ub, [1, 2, NULL] AS list, [1, 2]::INTEGER[2] AS fixed,
    {'a': 1, 'b': [{'u': 7::HUGEINT}]} AS struct, MAP {'k': 1::HUGEINT} AS map, 'b'::ENUM('a', 'b') AS word,
    '101'::BIT AS bits, '\\xAA\\x00'::BLOB AS bytes, '{"a": 1}'::JSON AS json, union_value(k := 2) AS either,
    NULL AS nothing, '' AS empty, TRUE AS yes, 1 AS "a""b", [] AS no_items, 'x' AS "HUGEINT",
    {'HUGEINT': 'x', 'u': '6aed987f-d12b-4c20-ae99-4dc95a7265ff'::UUID} AS named"""
OF_PYTHON_ONLY = """SELECT TIMETZ '01:02:03+02' AS zoned, 'infinity'::TIMESTAMP AS never, 'infinity'::DATE AS day,
    340282366920938463463374607431768211455::UHUGEINT AS positive"""

NEWER = "is this the address of a mirror, and its wandb-mirror as new as the one here?"

PARAMETERS = [
    *(None, True, 1, 2**70, -(2**63), 1.5, math.nan, math.inf, "x", "", "\N{SNOWMAN}'\"", b"\x00\xff"),
    *(dt.datetime(2020, 1, 2, 3, 4, 5, 6), dt.datetime(2020, 1, 2, tzinfo=dt.UTC)),
    *(dt.date(2020, 1, 2), dt.time(1, 2, 3), dt.timedelta(days=1, seconds=-2)),
    *(decimal.Decimal("1.50"), uuid.UUID(int=5), ["a", None], [1.0, math.nan], {"a": 1, "b": [2]}),
]


@pytest.fixture
def there(site: Site) -> Iterator[Any]:
    with site.connect() as connection:
        yield connection


@pytest.fixture
def here() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'").fetchall()
        yield connection


@pytest.mark.parametrize(
    "sql", [HARD, OF_PYTHON_ONLY, f"{HARD} WHERE FALSE", f"{HARD} FROM range(3000)"], ids=str.__len__
)
def test_values_and_types_are_those_of_duckdb(there: Any, here: Any, sql: str) -> None:
    wanted = here.execute(sql)
    described = [(name, str(kind)) for name, kind, *_ in wanted.description]
    rows = wanted.fetchall()
    found = there.execute(sql)
    assert [(name, str(kind)) for name, kind, *_ in found.description] == described
    assert repr(found.fetchall()) == repr(rows)
    assert there.sql(sql).columns == [name for name, _ in described]


def test_frames_are_those_of_duckdb(there: Any, here: Any) -> None:
    frame, wanted = there.sql(HARD).df(), here.sql(HARD).df()
    assert list(frame.dtypes) == list(wanted.dtypes)
    assert repr(frame.to_dict()) == repr(wanted.to_dict())
    assert there.sql(HARD).to_arrow_table().schema == here.sql(HARD).to_arrow_table().schema
    numbers = "SELECT range AS n, range / 2 AS half, 'x' || range AS text FROM range(250000)"
    assert there.sql(numbers).to_arrow_table() == here.sql(numbers).to_arrow_table()
    assert there.execute(numbers).pl().equals(here.sql(numbers).pl())
    reader = there.sql(numbers).arrow()
    assert isinstance(reader, pa.RecordBatchReader)
    assert sum(batch.num_rows for batch in reader) == 250_000


def test_parameters_of_every_type_arrive(there: Any, here: Any) -> None:
    sql = f"SELECT {', '.join('?, typeof(?)' for _ in PARAMETERS)}"
    values = [value for value in PARAMETERS for _ in range(2)]
    assert repr(there.execute(sql, values).fetchall()) == repr(here.execute(sql, values).fetchall())
    assert there.execute("SELECT $a + $b", {"a": 1, "b": 2}).fetchone() == (3,)
    with pytest.raises(ArgumentError, match="a parameter of a statement cannot be a object"):
        there.execute("SELECT ?", [object()])


def test_rows_are_fetched_in_parts(there: Any) -> None:
    found = there.execute("SELECT range FROM range(250000)")
    assert found.fetchone() == (0,)
    assert found.fetchmany(2) == [(1,), (2,)]
    assert len(found.fetchall()) == 249_997
    assert found.fetchall() == []
    assert found.fetchone() is None
    # What was not read is left behind.
    there.execute("SELECT range FROM range(250000)").fetchone()
    assert there.execute("SELECT 7").fetchall() == [(7,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM runs",
        "COPY runs TO '/tmp/runs.csv'",
        "SET threads = 1",
        "ATTACH 'other.duckdb'",
        "CHECKPOINT",
        "WITH x AS (COPY runs TO '/tmp/runs.csv') SELECT * FROM x",
        "SELECT 1; SELECT 2",
        "EXPLAIN DELETE FROM runs",
        "",
        "selec 1",
    ],
)
def test_what_does_more_than_read_is_refused(there: Any, sql: str) -> None:
    with pytest.raises((QueryError, duckdb.BinderException)):
        there.execute(sql)
    assert there.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nosuch FROM runs",
        "SELECT * FROM nosuch",
        "SELECT 'x'::INTEGER",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT error('no')",
    ],
)
def test_errors_are_those_of_duckdb(there: Any, site: Site, sql: str) -> None:
    with pytest.raises(duckdb.Error) as raised:
        there.execute(sql)
    with duckdb.connect(str(site.rig.home.published), read_only=True) as file:
        file.execute("SET enable_external_access = false").fetchall()
        with pytest.raises(type(raised.value)):
            file.execute(f"SELECT * FROM ({sql})").fetchall()


def test_an_error_far_into_an_answer_cuts_it(there: Any) -> None:
    """The rows before it are never taken for all rows."""
    sql = "SELECT CASE WHEN range = 2900000 THEN error('late') ELSE range::VARCHAR END FROM range(3000000)"
    with pytest.raises((CommError, duckdb.Error)) as raised:
        there.sql(sql).to_arrow_table()
    assert "late" in str(raised.value) or "ended half-way" in str(raised.value)


@contextmanager
def answering(respond: Any) -> Iterator[str]:
    """A server that answers every request as `respond(handler, body)` does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            respond(self, self.rfile.read(int(self.headers.get("content-length", 0))))

        do_GET = do_POST  # noqa: N815 - the name that the server calls

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def reported(status: int, content: Any = None, **headers: str) -> Any:
    def respond(handler: Any, _: bytes) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        for name, text in {"content-length": str(len(body)), **named}.items():
            handler.send_header(name, text)
        handler.end_headers()
        handler.wfile.write(body)

    return respond


@pytest.mark.parametrize(
    ("respond", "kind", "line"),
    [
        (reported(401, {"error": "this token has expired", "hint": "make another one"}), AuthError,
         "{url}: this token has expired; make another one"),
        (reported(404, b"<html>"), CommError,
         f"{{url}}/api/statements answers 404 Not Found; {NEWER}"),
        (reported(200, b"<html>"), CommError,
         f"{{url}}/api/statements answers 200 OK; {NEWER}"),
        (reported(301, b"", location="https://elsewhere/"), CommError,
         "{url} redirects to https://elsewhere/: use the address of the mirror itself"),
        (reported(502, b"bad gateway"), CommError,
         "a proxy at {url} answers 502: the mirror behind it is not running, or too slow"),
        (reported(503, {"error": "the daemon is stopping", "hint": ""}), CommError, "{url}: the daemon is stopping"),
        (reported(200, b"no arrow", content_type="application/vnd.apache.arrow.stream"), CommError,
         "the answer of {url} ended half-way, and nothing of it was used; try again"),
    ],
)  # fmt: skip
def test_each_failure_is_one_line(respond: Any, kind: type[Exception], line: str) -> None:
    with answering(respond) as url, pytest.raises(kind) as raised:
        mirror.connect(url, token="t")
    assert str(raised.value) == line.format(url=url)


def relayed(site: Site, change: Any) -> Any:
    """Answers as the mirror does, after `change` of the complete answer."""

    def respond(handler: Any, body: bytes) -> None:
        answer = site.door.ask("POST", "/api/statements", content=body)
        content = change(answer.content) if b"range" in body else answer.content
        handler.send_response(200)
        handler.send_header("content-type", answer.headers["content-type"])
        handler.send_header("x-mirror-snapshot", answer.headers["x-mirror-snapshot"])
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        if b"range" not in body or change(b"x" * 10**6):
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return respond


def without_its_end(content: bytes) -> bytes:
    """The stream with all rows and its own end, but without the batch that says how many there are."""
    if content.startswith(b"x"):
        return content
    reader = pa.ipc.open_stream(content)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            if batch.num_rows:
                writer.write_batch(batch)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[: len(content) // 2],
        without_its_end,
        lambda content: content[:-20] if content[:1] != b"x" else b"",
    ],
    ids=["half", "last batch", "connection"],
)
def test_an_answer_that_was_cut_is_never_taken_for_whole(site: Site, change: Any) -> None:
    with answering(relayed(site, change)) as url:
        connection = mirror.connect(url, token=site.door.token)
        for read in ("fetchall", "to_arrow_table", "df"):
            with pytest.raises(CommError) as raised:
                getattr(connection.sql("SELECT range FROM range(200000)"), read)()
            assert str(raised.value) == f"the answer of {url} ended half-way, and nothing of it was used; try again"


def test_a_file_that_was_cut_or_changed_on_the_way_is_refused(site: Site, tmp_path: Path) -> None:
    ((blob,),) = site.rig.sql("SELECT local_path FROM files WHERE run_id = 'run1' AND name = 'model.bin'")
    whole = Path(blob).read_bytes()
    for sent, length, line in (
        (whole[:-1], len(whole), "the file from {url} ended half-way"),
        (whole[:-1] + b"x", len(whole), "the file from {url} has other bytes than its SHA-256"),
    ):

        def respond(handler: Any, _: bytes, sent: bytes = sent, length: int = length) -> None:
            reported(200, sent, content_type="application/octet-stream", content_length=str(length))(handler, b"")
            handler.close_connection = True

        with answering(respond) as url:
            session = PeerSession(Peer.of(url, "t"), {})
            with pytest.raises(CommError) as raised:
                session.local(Path(blob))
            assert str(raised.value).startswith(line.format(url=url))
            assert list(session._copies.iterdir()) == []


def test_too_many_requests_are_repeated(site: Site) -> None:
    waits = ["0", "0"]

    def respond(handler: Any, body: bytes) -> None:
        if waits:
            reported(429, {"error": "too many", "hint": ""}, retry_after=waits.pop())(handler, body)
        else:
            relayed(site, lambda content: content)(handler, body)

    with answering(respond) as url:
        assert mirror.connect(url, token=site.door.token).execute("SELECT 1").fetchall() == [(1,)]
    assert waits == []


def test_a_mirror_that_cannot_be_reached_or_does_not_speak_tls(site: Site) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(CommError) as raised:
            mirror.connect(url, token="t")
    assert str(raised.value) == (
        f"{url} cannot be reached (Connection refused); is the daemon running, does [http] listen name an address "
        "that this machine reaches?"
    )
    with pytest.raises(CommError, match=r"does not speak TLS .*; does .* speak plain HTTP\? then write http://"):
        mirror.connect(site.door.url.replace("http:", "https:"), token="t")


def test_tls_needs_a_certificate_that_is_trusted(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate(tmp_path, "own")
    # The suite keeps what it read of the certificates; here they change.
    monkeypatch.setattr(ssl, "create_default_context", ssl.create_default_context.__wrapped__)
    door = Door(Home(site.rig.home.data, site.rig.home.config))
    try:
        door.listen(cert=str(cert), key=str(key))
        url = f"https://localhost:{door.url.rpartition(':')[2]}"
        with pytest.raises(CommError) as raised:
            mirror.connect(url, token=door.token)
        assert str(raised.value) == (
            f"the certificate of {url} is not trusted (self-signed certificate): set SSL_CERT_FILE to the file of the "
            "authority that signed it"
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert mirror.connect(url, token=door.token).execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(CommError, match=r"\(IP address mismatch, .*\): use a name that it is valid for"):
            mirror.connect(url.replace("localhost", "127.0.0.1"), token=door.token)
    finally:
        door.close()


@pytest.mark.parametrize("url", ["ftp://host", "host:8642", "", "http://", "http://host/?a=1", "http://host:x", None])
def test_a_wrong_address_is_refused(url: Any) -> None:
    with pytest.raises(ArgumentError if url is not None else ValueError, match="is not the address of a mirror"):
        mirror.Api(url=url, token="t") if url is not None else mirror.connect(url=" ", token="t")


def test_a_token_needs_an_address() -> None:
    for make in (mirror.connect, mirror.Api):
        with pytest.raises(ArgumentError, match="token= is for a mirror on another machine: give its url"):
            make(token="t")


def test_the_token(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from the call, the environment, or a file, and stands in no message and no representation."""
    with pytest.raises(AuthError, match=r"no token for 127\.0\.0\.1: set MIRROR_TOKEN; `mirror token add NAME`"):
        mirror.connect(site.door.url)
    with pytest.raises(ArgumentError, match="leave the token out of the address of host") as raised:
        mirror.connect("http://user:secret@host")
    assert "secret" not in str(raised.value)
    with pytest.raises(AuthError, match="the token is wrong"):
        mirror.connect(site.door.url, token="0" * 40)
    monkeypatch.setenv("MIRROR_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(AuthError, match=r"the token file .*/token cannot be read: No such file or directory"):
        mirror.connect(site.door.url)
    (tmp_path / "token").write_text(f"{site.door.token}\n")
    connection = mirror.connect(site.door.url)
    assert site.door.token not in f"{connection!r} {connection.peer!r} {mirror.Api(url=site.door.url)!r}"
    monkeypatch.setenv("MIRROR_TOKEN", site.door.token)
    (tmp_path / "token").unlink()
    assert mirror.connect(site.door.url).execute("SELECT 1").fetchone() == (1,)


@pytest.fixture(scope="module")
def own(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The port of a copy of the mirror, which is published again and again."""
    folder = tmp_path_factory.mktemp("own")
    home = Home(folder / "home", folder / "config.toml")
    shutil.copytree(site.rig.home.data, home.data, ignore=shutil.ignore_patterns("*.part", "state*"))
    with opened(home) as door:
        yield door
    assert list(home.data.glob(".mirror.duckdb-*.part")) == []


def publish(door: Door) -> None:
    """Replace the published file by another one, with one run less."""
    other = door.home.data / "other.duckdb"
    shutil.copy(door.home.published, other)
    with duckdb.connect(str(other)) as file:
        file.execute("DELETE FROM store.run_records WHERE rid = (SELECT max(rid) FROM store.run_records)").fetchall()
    other.replace(door.home.published)


def test_a_connection_shows_one_snapshot(own: Door) -> None:
    """Also when the mirror publishes meanwhile; another connection shows the newer one."""
    count = "SELECT count(*)::INTEGER FROM runs"
    api, before = mirror.Api(url=own.url, token=own.token), mirror.connect(own.url, token=own.token)
    (runs,) = before.execute(count).fetchone()
    listed = [run.id for path in PROJECTS for run in api.runs(path)]
    publish(own)
    assert before.cursor().execute(count).fetchone() == (runs,)
    assert [run.id for path in PROJECTS for run in api.runs(path, {"state": {"$ne": "x"}})] == listed
    assert mirror.connect(own.url, token=own.token).execute(count).fetchone() == (runs - 1,)
    api.refresh()
    assert len([run for path in PROJECTS for run in api.runs(path)]) == runs - 1
    assert len(list(own.home.data.glob(".mirror.duckdb-*.part"))) == 2


def test_a_snapshot_that_is_no_longer_kept(own: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "KEPT", 1)
    before = mirror.connect(own.url, token=own.token)
    publish(own)
    mirror.connect(own.url, token=own.token)
    with pytest.raises(StoreError) as raised:
        before.execute("SELECT 1")
    assert str(raised.value) == (
        f"{own.url}: this snapshot is no longer kept; api.refresh() shows the newest one, or connect again"
    )


def test_a_kept_snapshot_whose_file_was_deleted_is_kept_anew(own: Door) -> None:
    """As by a store that is opened again: the same version as long as it is the newest."""
    before = mirror.connect(own.url, token=own.token)
    for kept in own.home.data.glob(".mirror.duckdb-*.part"):
        kept.unlink()
    assert mirror.connect(own.url, token=own.token).execute("SELECT 1").fetchone() == (1,)
    assert before.execute("SELECT 1").fetchone() == (1,)


def test_a_token_of_one_project_sees_no_other(own: Door, site: Site) -> None:
    """In no statement, no file, and no call of the API."""
    tokens = Tokens(own.home.tokens)
    api = mirror.Api(url=own.url, token=tokens.add("vision", ["my-team/vision"], 1))
    connection = api._view.snapshot.cursor
    assert connection.execute("SELECT DISTINCT entity, project FROM runs").fetchall() == [("my-team", "vision")]
    assert connection.execute("SELECT * FROM store.run_records WHERE project = 'p'").fetchall() == []
    ((blob,),) = site.rig.sql("SELECT local_path FROM files WHERE run_id = 'run1' AND name = 'model.bin'")
    for path in (blob, blob.replace(str(site.rig.home.data), str(own.home.data)), own.home.published):
        with pytest.raises(duckdb.PermissionException):
            connection.execute(f"SELECT * FROM read_blob('{path}')")
    assert api.session.local(Path(blob)) is None
    assert mirror.Api(url=own.url, token=own.token).session.local(Path(blob)).read_bytes() == Path(blob).read_bytes()
    assert [project.name for project in api.projects()] == ["vision"]
    assert api.run("my-team/vision/vision00").history().equals(site.here.run("my-team/vision/vision00").history())
    with pytest.raises(mirror.NotMirrored, match="no project team/p in the mirror; mirrored: my-team/vision"):
        api.runs("team/p")
    tokens.revoke("vision")
    with pytest.raises(AuthError, match="the token vision is revoked; `mirror token add` makes another one"):
        api.run("my-team/vision/vision01").history()


def test_nothing_is_mirrored_yet(tmp_path: Path) -> None:
    home = Home(tmp_path / "empty", tmp_path / "config.toml")
    home.data.mkdir()
    with (
        opened(home) as door,
        pytest.raises(CommError, match="nothing is mirrored yet; try again after the first pass"),
    ):
        mirror.connect(door.url, token=door.token)


def test_a_statement_can_be_interrupted(there: Any) -> None:
    """Ctrl-C ends it here, and its worker there is free again."""
    endless = "SELECT count(*) FROM range(100000000) a, range(100000) b WHERE a.range + b.range = 7"
    failed: list[BaseException] = []

    def run() -> None:
        try:
            there.execute(endless)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        there.interrupt()
        thread.join(0.05)
    assert [type(error) for error in failed] == [duckdb.InterruptException]
    assert there.execute("SELECT 1").fetchone() == (1,)


def test_many_threads_share_a_connection(there: Any) -> None:
    found: list[Any] = []

    def read(number: int) -> None:
        found.append((number, there.cursor().execute("SELECT ? + 1", [number]).fetchone()))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(number, (number + 1,)) for number in range(12)]
