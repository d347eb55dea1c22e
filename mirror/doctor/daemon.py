"""Checks of the daemon: whether one runs, its problems, and how fresh the mirror is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mirror.control import Control
from mirror.doctor.findings import Finding, fail, ok, warn
from mirror.errors import MirrorError
from mirror.query.health import judge
from mirror.query.status import project_status
from mirror.settings import socket_path
from mirror.settings.home import Home
from mirror.settings.settings import Settings
from mirror.settings.tokens import Tokens
from mirror.settings.values import is_loopback
from mirror.version import VERSION

_ADVICE = {
    "publish": "fix the named cause; until then readers see the last published file, and nothing is lost",
    "writer": "`mirror daemon --stop` and start it again; mirror.log shows what it did last",
    "schedule": "`mirror daemon --stop` and start it again; please report it",
    "jobs": "mirror.log has the traceback; please report it",
    "local": "mirror.log names the file or folder",
    "lake": "fix the named cause; the lake keeps its former state until then",
    "page": "change http.listen, or stop what listens there; everything else works",
    "log": "check who owns it and the space on its disk",
}
"""Advice for problems that the daemon reports; the other kinds have their own findings."""


def check(home: Home, settings: Settings) -> Iterator[Finding]:
    """Check the socket's path, the daemon, and the freshness of the projects in the config."""
    if reason := socket_path.problem(home.socket):
        yield fail("socket", reason, "use a shorter MIRROR_HOME; no daemon can run in this one")
    yield from _daemon(home)
    yield from _readers(home, settings)
    yield from _freshness(home, settings)


def _daemon(home: Home) -> Iterator[Finding]:
    try:
        control = Control.find(home.socket)
        if control is None:
            yield ok("daemon", "not running; `mirror service install` or `mirror daemon` keeps the mirror fresh")
            return
        status = control.status()
    except MirrorError as error:
        yield fail("daemon", str(error), "stop it and start it again; mirror.log shows what it did last")
        return
    if status["version"] != VERSION:
        yield warn("daemon", f"version {status['version']} is running, {VERSION} is installed", "restart it")
    for problem in status.get("problems", ()):
        if problem["kind"] in _ADVICE:
            yield Finding(problem["kind"], problem["level"], problem["message"], _ADVICE[problem["kind"]])
    if problem := status["config_error"]:
        yield fail("daemon", f"still uses the old config: {problem}", "fix the config; it is applied at once")
    if problem := status["error"]:
        yield warn("daemon", str(problem), "it is retried on schedule")
    if crash := status.get("last_crash"):
        what = f"{crash['what']} crashed at {crash['at']} ({crash['error']}); the daemon went on"
        yield warn("daemon", what, f"{home.log} has the traceback; please report it")
    yield ok("daemon", f"runs, pid {status['pid']}, since {status['started_at']}")


def _readers(home: Home, settings: Settings) -> Iterator[Finding]:
    """Check the tokens, and whether they are encrypted on the way if other machines reach the port."""
    listen = settings.http.listen
    try:
        now = datetime.now(UTC)
        valid = [token.name for token in Tokens(home.tokens).every() if token.state(now) == "valid"]
    except MirrorError as error:
        message, _, advice = str(error).partition("; ")
        yield fail("tokens", message, advice)
        return
    if listen and not is_loopback(listen):
        if not settings.http.cert:
            what = f"other machines reach http.listen = {listen} without TLS, so tokens can be read on the way"
            yield warn("tokens", what, "set http.cert, or use a network that encrypts; see docs/api.md")
        if not valid:
            yield warn("tokens", f"there is none, so nothing listens on {listen}", "`mirror token add NAME`")
    if valid:
        yield ok("tokens", f"{len(valid)} valid: {', '.join(valid)}")


def _freshness(home: Home, settings: Settings) -> Iterator[Finding]:
    if not home.published.exists():
        return
    try:
        verdicts = judge(settings, project_status(home.published))
    except MirrorError:
        return  # an earlier check reports that the file cannot be read
    for verdict in verdicts:
        if verdict.ahead:
            advice = "set the clock (NTP); the next good pass corrects the date"
            yield fail("freshness", f"{verdict.project}: {verdict.reason}", advice)
        elif verdict.state != "ok":
            yield warn(
                "freshness", f"{verdict.project} is {verdict.state}: {verdict.reason}", "`mirror sync` shows why"
            )
    if verdicts and all(verdict.state == "ok" for verdict in verdicts):
        yield ok("freshness", f"{len(verdicts)} {'project is' if len(verdicts) == 1 else 'projects are'} up to date")
