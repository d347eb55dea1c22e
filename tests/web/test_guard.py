"""Nobody but the owner of the home gets anything out of the port, and no other page can have a browser ask for it."""

from __future__ import annotations

import base64
import stat

import pytest

from mirror.web import token

pytestmark = pytest.mark.xdist_group("guard")


def test_without_the_token_there_is_nothing(site):
    with site.client() as client:
        for path in ("/", "/page.js", "/api/state", "/api/runs?project=team/vision", "/nothing"):
            answer = client.get(path)
            assert (answer.status_code, "message" in answer.json()) == (401, True), path
        page = client.get("/", headers={"Accept": "text/html"})
        assert (page.status_code, "mirror open" in page.text) == (401, True)
        assert client.get("/?token=" + "0" * 40).status_code == 401
        assert client.post("/api/sql", json={"sql": "select 1"}).status_code == 401
        for sent in (f"Bearer {'0' * 40}", "Bearer", "Basic !", "Basic YTpi", f"Digest {site.token}", "Bearer é"):
            answer = client.get("/api/state", headers={"Authorization": sent.encode("latin-1")})
            assert answer.status_code == 401, sent


def test_the_token_lies_in_the_home_for_its_owner_alone(site):
    file = site.home / "web.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(site.token) == 40


def test_the_link_gives_the_browser_a_cookie_that_no_script_and_no_other_site_gets(site):
    with site.client() as client:
        page = client.get(f"/?token={site.token}")
        assert page.status_code == 200
        assert page.headers["set-cookie"].split("; ")[1:] == [
            "Path=/",
            "Max-Age=31536000",
            "HttpOnly",
            "SameSite=Strict",
        ]
        assert client.get("/api/state").status_code == 200


def test_a_ticket_opens_the_page_once(site):
    ticket = token.ticket(site.token)
    with site.client() as first, site.client() as second:
        assert first.get(f"/?ticket={ticket}").status_code == 200
        assert first.get("/api/state").status_code == 200
        assert second.get(f"/?ticket={ticket}").status_code == 401


def test_a_ticket_is_good_for_two_minutes_and_for_the_page_alone(site, monkeypatch):
    with site.client() as client:
        assert client.get("/api/state", params={"ticket": token.ticket(site.token)}).status_code == 401
        assert client.get("/", params={"ticket": token.ticket("0" * 40)}).status_code == 401
        for odd in ("", "..", "9999999999.x.y", "é.é.é"):
            assert client.get("/", params={"ticket": odd}).status_code == 401
        now = token.time.time()
        monkeypatch.setattr(token.time, "time", lambda: now - 121)
        assert client.get("/", params={"ticket": token.ticket(site.token)}).status_code == 401


def test_clients_send_the_token_as_a_bearer_or_as_the_password(site):
    basic = base64.b64encode(f"api:{site.token}".encode()).decode()
    for sent in (f"Bearer {site.token}", f"bearer {site.token}", f"Basic {basic}"):
        with site.client(Authorization=sent) as client:
            assert client.get("/api/state").status_code == 200
            assert client.post("/api/sql", json={"sql": "select 1 as one"}).json()["rows"] == [["1"]]


def test_agents_call_tools_with_the_token(site):
    call = {"name": "find_runs", "arguments": {"project": "team/vision", "limit": 0}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    headers = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {site.token}"}
    with site.client(**headers) as client:
        answer = client.post("/mcp", json=asked).json()
    assert answer["result"]["content"][0]["text"].splitlines()[0] == "13 runs match"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]", "a b"]
)
def test_a_foreign_name_that_leads_here_is_refused(site, host):
    """As DNS rebinding does it."""
    with site.client(Authorization=f"Bearer {site.token}", Host=host) as client:
        assert client.get("/api/state").status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "[::1]:8642"])
def test_names_of_this_machine_are_taken_at_any_port(site, host):
    """As they are written behind an SSH tunnel."""
    with site.client(Authorization=f"Bearer {site.token}", Host=host) as client:
        assert client.get("/api/state").status_code == 200


def test_requests_of_other_origins_are_refused(site):
    url = site.served()
    with site.client() as client:
        client.get(f"/?token={site.token}")
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
            {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        ):
            answer = client.get("/api/state", headers=headers)
            assert answer.status_code == 403, headers
            assert not [name for name in answer.headers if name.startswith("access-control")]
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert client.get("/", headers=link).status_code == 200
        assert client.get("/api/state", headers={"Origin": url, "Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_what_is_posted_says_that_it_comes_from_the_page(site):
    with site.client() as client:
        client.get(f"/?token={site.token}")
        sql = {"sql": "select 1 as one"}
        assert client.post("/api/sql", json=sql).status_code == 403
        assert client.post("/api/sql", json=sql, headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.post("/api/sql", json=sql, headers={"Origin": site.served()}).status_code == 200
        assert client.get("/api/sql").status_code == 405
        assert client.post("/api/state", headers={"Origin": site.served()}).status_code == 405


def test_every_answer_has_the_safe_headers(site):
    with site.client(Authorization=f"Bearer {site.token}") as client:
        for path in ("/", "/page.js", "/charts-library.js", "/api/state", "/api/runs", "/nothing"):
            answer = client.get(path)
            policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["connect-src"] == "'self'"
            assert "unsafe" not in answer.headers["content-security-policy"]
            reported = {
                name: answer.headers[name] for name in ("x-content-type-options", "referrer-policy", "x-frame-options")
            }
            assert reported == {
                "x-content-type-options": "nosniff",
                "referrer-policy": "no-referrer",
                "x-frame-options": "DENY",
            }
            assert answer.headers["cache-control"] == ("no-store" if path[1:4] in ("api", "not") else "no-cache")
            assert "server" not in answer.headers


def test_nothing_but_the_files_of_the_page_is_served(site):
    with site.client(Authorization=f"Bearer {site.token}") as client:
        for path in ("/app.py", "/..%2Fapp.py", "/%2e%2e/app.py", "/static/page.js", "//etc/passwd"):
            assert client.get(path).status_code == 404, path
