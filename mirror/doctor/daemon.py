"""The daemon: whether one runs and is well, whether one could, and how fresh it keeps the mirror."""

from __future__ import annotations

from collections.abc import Iterator

from mirror.control import Control
from mirror.doctor.findings import Finding, fail, ok, warn
from mirror.errors import MirrorError
from mirror.query.health import judge
from mirror.query.status import project_status
from mirror.settings import socket_path
from mirror.settings.home import Home
from mirror.settings.settings import Settings
from mirror.version import VERSION

_ADVICE = {
    "publish": "mend what it says; readers see what was published last until then, and nothing is lost",
    "writer": "`mirror daemon --stop` and start it again; mirror.log tells what it did last",
    "schedule": "`mirror daemon --stop` and start it again; please report it",
    "jobs": "mirror.log has the traceback; please report it",
    "local": "mirror.log tells which file or folder",
    "page": "change http.listen, or stop what listens there; all else goes on",
    "log": "check who owns it and the space on its disk",
}
"""What to do about the problems that the daemon tells of; the others have lines of their own."""


def check(home: Home, settings: Settings) -> Iterator[Finding]:
    """The socket's path, the daemon, and the freshness of what the config names."""
    if reason := socket_path.problem(home.socket):
        yield fail("socket", reason, "use a shorter MIRROR_HOME; no daemon can run in this one")
    yield from _daemon(home)
    yield from _freshness(home, settings)


def _daemon(home: Home) -> Iterator[Finding]:
    try:
        control = Control.find(home.socket)
        if control is None:
            yield ok("daemon", "none runs; `mirror service install` or `mirror daemon` keeps the mirror fresh")
            return
        status = control.status()
    except MirrorError as error:
        yield fail("daemon", str(error), "stop it and start it again; mirror.log tells what it did last")
        return
    if status["version"] != VERSION:
        yield warn("daemon", f"version {status['version']} runs, installed is {VERSION}", "start it again")
    for problem in status.get("problems", ()):
        if problem["kind"] in _ADVICE:
            yield Finding(problem["kind"], problem["level"], problem["message"], _ADVICE[problem["kind"]])
    if problem := status["config_error"]:
        yield fail("daemon", f"goes on by the former config: {problem}", "mend the config; it is applied at once")
    if problem := status["error"]:
        yield warn("daemon", str(problem), "it is tried again on schedule")
    if crash := status.get("last_crash"):
        what = f"{crash['what']} crashed at {crash['at']} ({crash['error']}); the daemon went on"
        yield warn("daemon", what, f"{home.log} has the traceback; please report it")
    yield ok("daemon", f"runs, pid {status['pid']}, since {status['started_at']}")


def _freshness(home: Home, settings: Settings) -> Iterator[Finding]:
    if not home.published.exists():
        return
    try:
        verdicts = judge(settings, project_status(home.published))
    except MirrorError:
        return  # that the file cannot be read was said before
    for verdict in verdicts:
        if verdict.ahead:
            advice = "set the clock (NTP); the next good pass puts the date right"
            yield fail("freshness", f"{verdict.project}: {verdict.reason}", advice)
        elif verdict.state != "ok":
            yield warn(
                "freshness", f"{verdict.project} is {verdict.state}: {verdict.reason}", "`mirror sync` tells why"
            )
    if verdicts and all(verdict.state == "ok" for verdict in verdicts):
        yield ok("freshness", f"{len(verdicts)} {'project is' if len(verdicts) == 1 else 'projects are'} up to date")
