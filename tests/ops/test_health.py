"""`mirror status`: freshness by exit code, runs that are set aside, and metrics that Prometheus reads."""

from __future__ import annotations

import json
import re
import stat

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.test_daemon import add
from tests.docs.test_deploy import used_metrics
from tests.sync.rig import spoil


def verdicts(done):
    """project to (state, reason) of `status --check --json`."""
    return {found["project"]: (found["state"], found["reason"]) for found in json.loads(done.stdout)["projects"]}


def test_a_fresh_mirror_is_healthy(bench):
    add(bench, "one")
    bench.configure(interval="5m")
    bench.mirror("sync")
    done = bench.here("status", "--check")
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(r"team/p  ok      \d+ s ago, 16 min 0 s allowed\n", done.stdout)
    found = json.loads(bench.here("status", "--check", "--json", "--max-age", "10m").stdout)
    (project,) = found["projects"]
    assert 0 <= project.pop("lag_s") < 100
    assert found == {
        "ok": True,
        "projects": [{"project": "team/p", "state": "ok", "allowed_s": 600.0, "reason": ""}],
        "problems": [],
    }


def test_a_stale_or_missing_project_ends_with_4(bench):
    add(bench, "one")
    bench.configure('["team/p", "team/new", "team/x*"]')
    bench.mirror("sync", "team/p")
    done = bench.here("status", "--check", "--json")
    assert done.exit_code == 4
    assert verdicts(done) == {
        "team/p": ("ok", ""),
        "team/new": ("stale", "never synced"),
        "team/x*": ("stale", "never synced"),
    }
    bench.configure('["team/*"]')
    assert bench.here("status", "--check").exit_code == 0
    done = bench.here("status", "--check", "--max-age", "1ms")
    assert done.exit_code == 4
    assert re.fullmatch(r"team/p  stale   \d+ s ago, 0 s allowed: no pass since\n", done.stdout)


def test_a_failed_pass_ends_with_1_until_it_is_stale_too(bench):
    add(bench, "one")
    bench.configure(interval="5m")
    bench.mirror("sync")
    # Port 9 of the loopback interface is closed; the client gives up after some tries.
    bench.mirror("sync", check=False, WANDB_BASE_URL="http://127.0.0.1:9")
    done = bench.here("status", "--check", "--json")
    assert done.exit_code == 1
    ((state, reason),) = verdicts(done).values()
    assert (state, reason[:36]) == ("failed", "cannot reach http://127.0.0.1:9 (Con")
    stale = bench.here("status", "--check", "--json", "--max-age", "1ms")
    assert stale.exit_code == 4
    assert verdicts(stale) == {"team/p": ("stale", reason)}
    bench.mirror("sync")
    assert bench.here("status", "--check").exit_code == 0


def test_what_cannot_be_checked_is_a_usage_error(bench):
    for arguments, said in (
        (["--check"], "nothing to check: nothing is mirrored"),
        (["--check", "--max-age", "soon"], "--max-age must be a duration"),
        (["--max-age", "5m"], "--max-age needs --check"),
        (["--check", "--prometheus"], "--check or --prometheus, not both"),
    ):
        done = bench.here("status", *arguments)
        assert (done.exit_code, done.stdout) == (2, ""), arguments
        assert said in done.stderr


def test_runs_that_failed_are_listed_with_error_and_next_try(bench):
    add(bench, "good")
    for index in range(22):
        spoil(add(bench, f"bad{index:02}"))
    bench.mirror("sync", "team/p", check=False)
    page = bench.here("status").stdout
    assert re.search(r"^to retry +attempts  next try +error$", page, re.MULTILINE)
    assert re.search(
        r"^team/p/bad00 +1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  the server sent a history line", page, re.MULTILINE
    )
    assert page.endswith("\n... and 2 more; --json has all of them\n")
    found = json.loads(bench.here("status", "--json").stdout)["set_aside"]
    assert [run["run"] for run in found] == [f"team/p/bad{index:02}" for index in range(22)]
    assert {(run["attempts"], run["error"][:37]) for run in found} == {(1, "the server sent a history line of bad")}


def samples(text):
    """Every sample that Prometheus' own parser finds, and that each metric has a help text and a type."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("gauge", "counter"), family.name
        for sample in family.samples:
            found[sample.name, *sorted(sample.labels.items())] = sample.value
    return found


def test_metrics_without_a_daemon_tell_of_the_mirror(bench):
    add(bench, "one", state="running")
    spoil(add(bench, "bad"))
    add(bench, "two", project='q"uo')
    bench.mirror("sync", "team/p", 'team/q"uo', check=False)
    found = samples(bench.here("status", "--prometheus").stdout)
    p, quoted = ("project", "team/p"), ("project", 'team/q"uo')
    assert found["mirror_project_runs", p] == 2
    assert found["mirror_project_running_runs", p] == 1
    assert found["mirror_project_history_rows", p] == 3
    assert found["mirror_project_set_aside_runs", p] == 1
    assert found["mirror_project_failing", p] == 0
    assert found["mirror_project_runs", quoted] == 1
    assert 0 <= found["mirror_project_lag_seconds", p] < 100
    assert found["mirror_file_bytes", ("file", "published")] == (bench.home / "mirror.duckdb").stat().st_size
    assert found["mirror_daemon_up",] == 0
    assert not any(name.startswith("mirror_requests") for name, *_ in found)


def test_metrics_of_a_daemon_go_into_a_file_that_is_replaced(bench):
    add(bench, "one")
    bench.configure(interval="1h")
    target = bench.root / "textfiles" / "mirror.prom"
    target.parent.mkdir()
    target.write_text("old\n")
    with bench.daemon():
        # The first pass has ended, so that the fault meets the request of the second.
        bench.until(lambda: bench.sql("select last_success_at is not null from projects") == [(True,)])
        bench.server.faults.add("500", times=1)
        bench.mirror("sync")
        inode = target.stat().st_ino
        done = bench.here("status", "--prometheus", "-o", str(target))
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert target.stat().st_ino != inode
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["mirror.prom"]
    found = samples(target.read_text())
    # Those of deploy/ are all there; this server tells no quota.
    assert used_metrics() - {name for name, *_ in found} == {"mirror_quota_left"}
    assert found["mirror_daemon_up",] == 1
    assert found["mirror_requests_total", ("operation", "MirrorRuns")] == 3
    assert found["mirror_request_retries_total", ("operation", "MirrorRuns")] == 1
    assert found["mirror_passes_total", ("project", "team/p"), ("result", "ok")] == 2
    assert found["mirror_passes_total", ("project", "team/p"), ("result", "failed")] == 0
    assert found["mirror_last_pass_requests", ("project", "team/p")] == 2
    assert found["mirror_received_bytes_total",] > 100
    assert found["mirror_downloads_running",] == found["mirror_downloaded_files_total",] == 0
    assert found["mirror_download_rounds_total", ("result", "ok")] == found["mirror_content_bytes",] == 0
    assert found["mirror_publications_total",] >= 1
    assert found["mirror_publish_seconds_total",] > 0
    assert {name: found["mirror_problem", ("kind", name)] for name in ("config", "projects", "crash")} == {
        "config": 0,
        "projects": 0,
        "crash": 0,
    }


def test_the_daemons_port_serves_metrics_to_whoever_sends_its_token(bench):
    add(bench, "one")
    bench.configure(interval="1h", listen="127.0.0.1:0")
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        url = json.loads(bench.here("status", "--json").stdout)["daemon"]["http"]["url"].rstrip("/")
        token = (bench.home / "web.token").read_text().strip()
        assert httpx.get(f"{url}/metrics").status_code in (401, 403)
        # As a probe asks: without a token, and by an address that the page does not answer to.
        health = httpx.get(f"{url}/healthz", headers={"Host": "10.1.2.3:8642"})
        assert (health.status_code, health.json()) == (200, {"ok": True, "problems": []})
        bench.configure(text="projects = [1]")
        bench.until(lambda: httpx.get(f"{url}/healthz").status_code == 503)
        assert httpx.get(f"{url}/healthz").json() == {"ok": False, "problems": ["config"]}
        assert httpx.post(f"{url}/healthz").status_code == 405
        answer = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = samples(answer.text)
    assert found["mirror_project_runs", ("project", "team/p")] == 1
    assert found["mirror_daemon_up",] == 1


def test_a_file_that_cannot_be_written_is_named(bench):
    done = bench.here("status", "--prometheus", "-o", str(bench.root / "none" / "mirror.prom"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot write ")


def test_an_invalid_config_is_reported_and_everything_else_is_shown(bench):
    """What reads the mirror alone works on as if nothing were wrong."""
    add(bench, "one")
    bench.configure(interval="5m")
    bench.here("sync")
    bench.configure(text='projects = ["team/p"]\nnonsense = 1\n')
    reason = f"{bench.home}/config.toml, line 2: nonsense: unknown key"
    done = bench.here("status")
    assert (done.exit_code, done.stderr) == (2, "")
    lines = done.stdout.splitlines()
    assert lines[2].startswith(f"config   {reason}, known: ")
    assert lines[3] == "daemon   not running"
    assert lines[-1].startswith("team/p      1        0             3  ")
    found = json.loads(bench.here("status", "--json").stdout)
    assert found["config_error"].startswith(reason)
    assert found["server"] == {"base_url": None, "credential": None, "credential_error": None}
    assert [project["project"] for project in found["projects"]] == ["team/p"]
    check = bench.here("status", "--check", "--json")
    assert check.exit_code == 2
    assert verdicts(check) == {"team/p": ("ok", "")}
    assert [problem["kind"] for problem in json.loads(check.stdout)["problems"]] == ["config"]
    assert bench.here("status", "--check", "--max-age", "1ms").exit_code == 4
    assert samples(bench.here("status", "--prometheus").stdout)["mirror_project_runs", ("project", "team/p")] == 1
    for arguments in (
        ["query", "select count(*) as runs from runs"],
        ["history", "team/p/one"],
        ["export", "-o", str(bench.root / "exported")],
    ):
        assert bench.here(*arguments).exit_code == 0, arguments
    assert bench.here("sync").stderr.startswith(f"error: {reason}")


def test_an_invalid_config_of_an_empty_home(bench):
    """The check has nothing to check, and says why."""
    bench.configure(text="nonsense = 1\n")
    done = bench.here("status")
    assert done.exit_code == 2
    assert "config   " in done.stdout
    assert bench.here("status", "--check").stderr.startswith(f"error: {bench.home}/config.toml, line 1: nonsense")
