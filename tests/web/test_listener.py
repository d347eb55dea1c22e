"""`[http] listen` and `mirror open`: where the page is, and what is said when there is none."""

from __future__ import annotations

import socket

import httpx
import pytest

from mirror.control import Control
from mirror.settings.settings import load


def http_of(bench):
    return Control(bench.home / "mirror.sock").status()["http"]


def test_open_prints_a_link_that_opens_the_page(site):
    done = site.mirror("open", "--print")
    assert done.stdout == f"{site.served()}/?token={site.token}\n"
    assert httpx.get(done.stdout.strip()).status_code == 200


def test_open_gives_the_browser_a_link_without_the_token(site, tmp_path):
    """A command line is seen by every user of the machine."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    done = site.mirror("open", BROWSER=f"{browser} %s")
    assert (done.stdout, done.stderr) == ("", f"opened {site.served()}\n")
    link = (tmp_path / "opened").read_text()
    assert link.startswith(f"{site.served()}/?ticket=")
    assert site.token not in link
    assert httpx.get(link).status_code == 200


def test_open_without_a_daemon_says_what_to_start(bench):
    bench.configure()
    done = bench.mirror("open", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no daemon runs in this home; start `mirror daemon`, which serves the page\n"


def test_a_busy_port_is_reported_and_a_changed_address_is_applied(bench):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        busy = f"127.0.0.1:{other.getsockname()[1]}"
        bench.configure(interval="1h", listen=busy)
        with bench.daemon():
            bench.until(lambda: http_of(bench)["error"])
            found = http_of(bench)
            assert found["url"] is None
            assert found["error"].startswith(f"cannot listen on {busy}: Address already in use")
            done = bench.mirror("open", "--print", check=False)
            assert done.returncode == 1
            assert done.stderr.startswith(f"error: the daemon serves no page: cannot listen on {busy}: ")
            assert "everything else continues" in (bench.home / "mirror.log").read_text()

            bench.configure(interval="1h", listen="localhost:0")
            bench.until(lambda: http_of(bench)["url"])
            first = http_of(bench)["url"]
            assert httpx.get(first).status_code == 401

            bench.configure(interval="1h", listen="")
            bench.until(lambda: http_of(bench) == {"url": None, "error": None})
            with pytest.raises(httpx.ConnectError):
                httpx.get(first)
            done = bench.mirror("open", check=False)
            assert done.stderr == f"error: the page is turned off: set http.listen in {bench.home / 'config.toml'}\n"


@pytest.mark.parametrize("listen", ["127.0.0.1:8642", "localhost:0", "[::1]:80", "0.0.0.0:8642", "[::]:9999", ""])
def test_addresses_of_this_machine_and_of_its_networks_are_taken(home, listen):
    home.data.mkdir(parents=True)
    home.config.write_text(f'[http]\nlisten = "{listen}"\n')
    assert load(home, {}).http.listen == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:8642", "0.0.0.0:8642", "[::]:8642"])
def test_the_address_that_env_sets_for_other_programs_is_not_the_server(home, listen):
    home.data.mkdir(parents=True)
    home.config.write_text(f'[http]\nlisten = "{listen}"\n')
    own = "http://127.0.0.1:8642"
    assert load(home, {"WANDB_BASE_URL": own}).server.base_url == "https://api.wandb.ai"
    assert load(home, {"WANDB_BASE_URL": "http://127.0.0.1:8643"}).server.base_url == "http://127.0.0.1:8643"


def test_a_token_file_that_is_no_token_is_replaced(tmp_path):
    from mirror.web import token

    path = tmp_path / "web.token"
    path.write_text("short\n")
    drawn = token.load(path)
    assert len(drawn) == 40
    path.chmod(0o644)
    assert token.load(path) == drawn
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["web.token"]
