"""`mirror doctor` finds what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mirror.sandbox import Sandbox, World
from tests.daemon.conftest import Bench
from tests.daemon.test_daemon import add


def findings(bench, *, code, **environ):
    """check to [(level, message, advice)]."""
    done = bench.here("doctor", "--json", **environ)
    assert done.exit_code == code
    assert [line for line in done.stderr.splitlines() if not line.startswith("warning: cannot reach ")] == []
    assert environ.get("WANDB_API_KEY", bench.server.key) not in done.stdout
    found = {}
    for line in json.loads(done.stdout):
        assert set(line) == {"check", "level", "message", "advice"}
        found.setdefault(line["check"], []).append((line["level"], line["message"], line["advice"]))
    return found


@pytest.fixture
def mirrored(bench):
    """A home in which all is well."""
    bench.home.chmod(0o700)
    add(bench, "one")
    bench.configure('["team/p", "team/x*"]')
    bench.mirror("sync")
    return bench


def test_of_a_healthy_mirror_everything_is_ok(mirrored):
    mirrored.configure(interval="1h")
    with mirrored.daemon() as daemon:
        mirrored.until(lambda: mirrored.log() != [])
        done = mirrored.mirror("doctor")
        lines = done.stdout.splitlines()
        assert [line.split()[:2] for line in lines] == [
            ["ok", name]
            for name in (
                *("versions", "config", "home", "permissions", "state", "mirror", "disk"),
                *("key", "clock", "server", "projects", "features", "daemon", "freshness"),
            )
        ]
        names = "state.duckdb, mirror.sock, mirror.log, mirror.duckdb"
        assert lines[3] == f"ok    permissions  {names} have the right permissions"
        state = f"all of {mirrored.home}/state.duckdb can be read (checked by the daemon, which has it open)"
        assert lines[4] == f"ok    state        {state}"
        assert lines[7] == "ok    key          from WANDB_API_KEY"
        assert lines[9].endswith(" answers; the key belongs to ada (entity team)")
        assert lines[12].startswith(f"ok    daemon       runs, pid {daemon.pid}, since ")


def test_permissions_that_let_others_in_fail(mirrored):
    netrc = mirrored.root / ".netrc"
    netrc.write_text("")
    netrc.chmod(0o644)
    mirrored.home.chmod(0o770)
    (mirrored.home / "state.duckdb").chmod(0o640)
    (mirrored.home / "mirror.duckdb").chmod(0o644)
    found = findings(mirrored, code=1)
    home, state, published = mirrored.home, mirrored.home / "state.duckdb", mirrored.home / "mirror.duckdb"
    assert found["home"] == [("fail", f"{home} is writable by other users (0770)", f"`chmod go-w {home}`")]
    assert found["permissions"] == [
        ("fail", f"{state} is accessible to other users (0640)", f"`chmod 600 {state}`"),
        ("warn", f"{published} is writable, so clients may damage it (0644)", f"`chmod 444 {published}`"),
    ]
    message = f"{netrc}, which contains keys, is accessible to other users (0644)"
    assert found["key"][1] == ("fail", message, f"`chmod 600 {netrc}`")


def test_files_that_are_not_as_they_should_be(mirrored):
    stray = mirrored.home / "mirror.duckdb.wal"
    stray.write_bytes(b"")
    mirrored.configure(text='projects = ["team/p"]\n[publish]\nstorage_version = "v1.2.0"\n')
    log, published = findings(mirrored, code=0)["mirror"]
    assert log[:2] == ("warn", f"{stray} was left by a client that opened the published file for writing")
    assert published[0] == "warn"
    assert published[1].endswith("has 1 run, and is in the format of DuckDB v1.4.0; the config asks for v1.2.0")
    assert stray.exists()
    stray.unlink()
    (mirrored.home / "mirror.duckdb").unlink()
    (mirrored.home / "mirror.duckdb").write_bytes(b"\0" * 20_000)
    ((level, message, advice),) = findings(mirrored, code=1)["mirror"]
    assert (level, advice) == ("fail", "`mirror sync` publishes it again")
    assert message.startswith(f"{mirrored.home / 'mirror.duckdb'} is damaged (")


def test_a_config_that_is_not_valid_fails_and_the_rest_is_checked(mirrored):
    mirrored.configure(text='projects = ["team/p"]\n[sync]\nintervall = "1h"\n')
    found = findings(mirrored, code=1)
    assert found["config"][0][0] == "fail"
    assert "intervall" in found["config"][0][1]
    assert found["mirror"][0][0] == "ok"
    assert found["daemon"][0][0] == "ok"
    said = "not checked, since the config may name another one"
    assert found["server"] == [("warn", said, "fix the config first")]
    assert "key" not in found


def test_projects_that_are_not_there(mirrored):
    mirrored.configure('["team/p", "team/nope", "team/zz*", "team/*"]')
    found = findings(mirrored, code=1)
    url = mirrored.server.url
    assert [(level, message) for level, message, _ in found["projects"]] == [
        ("ok", "team/p can be read: 1 run in scope"),
        ("fail", f"team/nope is not on {url}, or the key may not read it"),
        ("warn", "no project matches team/zz*"),
        ("ok", "team/* matches 1 project"),
    ]
    assert [level for level, _, _ in found["freshness"]] == ["warn", "warn"]


def test_keys_and_servers_that_do_not_work(mirrored):
    found = findings(mirrored, code=1, WANDB_API_KEY="0" * 40)
    assert found["server"][0][:2] == (
        "fail",
        f"{mirrored.server.url} does not accept the API key from WANDB_API_KEY; run `mirror login` or set WANDB_API_KEY",
    )
    done = mirrored.here("doctor", "--json", WANDB_API_KEY="")
    assert done.exit_code == 1
    assert [line["level"] for line in json.loads(done.stdout) if line["check"] == "key"] == ["fail"]
    found = findings(mirrored, code=1, WANDB_BASE_URL="http://127.0.0.1:9")
    assert [found[check][0][0] for check in ("clock", "server")] == ["fail", "fail"]
    assert "projects" not in found


def test_a_clock_that_is_wrong_is_reported(mirrored):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            assert "Authorization" not in self.headers
            self.send_response(404)
            self.end_headers()

        def date_time_string(self, timestamp=None):
            return formatdate(time.time() - 3600, usegmt=True)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = findings(mirrored, code=1, WANDB_BASE_URL=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    ((level, message, advice),) = found["clock"]
    assert (level, message) in {("warn", f"is 3,{seconds} s ahead of the server's") for seconds in range(598, 610)}
    assert advice.startswith("set it (NTP)")


def test_an_older_server_is_recognised_by_what_it_lacks(tmp_path):
    with Sandbox(World(), features={"parquet": False, "updated_at_filter": False}) as server:
        bench = Bench(tmp_path, server)
        add(bench, "one")
        bench.configure()
        ((level, message, _),) = findings(bench, code=0)["features"]
    assert level == "ok"
    lacking = (
        "no parquetHistory: long histories are pulled in pages; "
        "no updatedAt filter: edits that move no heartbeat are found only by the full listing"
    )
    assert message == f"the server lacks features: {lacking}"


def test_a_home_whose_socket_would_have_too_long_a_path_is_reported_where_no_other_way_leads_there(bench, monkeypatch):
    home = bench.root / ("x" * 100)
    found = findings(bench, code=0, MIRROR_HOME=str(home))
    assert "socket" not in found
    monkeypatch.setattr("mirror.settings.socket_path._DESCRIPTORS", bench.root / "no such folder")
    found = findings(bench, code=1, MIRROR_HOME=str(home))
    ((level, message, advice),) = found["socket"]
    assert (level, advice) == ("fail", "use a shorter MIRROR_HOME; no daemon can run in this one")
    assert message.startswith(f"{home}/mirror.sock is ")
    assert found["home"] == [("ok", f"{home} does not exist yet; the first sync creates it", "")]
    assert not home.exists()


def test_a_daemon_with_problems_is_reported(mirrored):
    mirrored.configure(interval="1h")
    with mirrored.daemon():
        mirrored.until(lambda: mirrored.log() != [])
        mirrored.configure(text='projects = ["team/p"]\nnonsense = 1\n')
        mirrored.until(lambda: "the running settings stay" in str(mirrored.log()))
        found = findings(mirrored, code=1)
    assert found["config"][0][0] == "fail"
    assert found["daemon"][0][0] == "fail"
    assert found["daemon"][0][1].startswith("still uses the old config: ")
