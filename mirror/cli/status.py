"""`mirror status`: how old the mirror is, where the API key comes from, and whether a daemon runs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli import complete
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, leave, say
from mirror.cli.sizes import size_text
from mirror.errors import AuthError, ConfigError, MirrorError, UsageError, one_line

if TYPE_CHECKING:
    from mirror.query.health import Verdict
    from mirror.settings.settings import Settings

COLUMNS = ("project", "runs", "running", "history rows", "last success", "lag", "to retry", "last error")

WATCH_SECONDS = 2.0
_END_OF_LINE = "\x1b[K\n"

MOST_SET_ASIDE = 20
"""How many runs that failed and will be retried are shown; --json has all of them."""


def status(
    context: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...", help="Only these projects, or E/*. Default: all.", autocompletion=complete.projects
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Set the exit code: 4 if a project is too old, 1 if a pass or the daemon failed."),
    ] = False,
    max_age: Annotated[
        str | None,
        typer.Option(
            "--max-age", metavar="TIME", help="Age that --check allows, such as 10m. Default: 3 intervals and a minute."
        ),
    ] = None,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="Print metrics for Prometheus.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until Ctrl-C.")] = False,
    file: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to a file, which is replaced in one step."),
    ] = None,
) -> None:
    """Show row counts, lag and the last error of each project, the key's source and the daemon.

    Does not ask the W&B server.
    """
    given = invocation(context)
    if max_age is not None and not check:
        raise UsageError("--max-age needs --check; add it")
    if check and prometheus:
        raise UsageError("give --check or --prometheus, not both")
    if watch and (check or prometheus or as_json or file is not None):
        raise UsageError("--watch shows the page on a terminal; leave --check, --prometheus, --json and -o out")
    if prometheus:
        if paths:
            raise UsageError("--prometheus covers every project; leave PATH out")
        from mirror.daemon import metrics

        daemon = _daemon(given)
        _put(metrics.text(given.home, daemon if "pid" in daemon else None), file)
        return
    if check:
        _check(given, paths or [], max_age, file, as_json=as_json)
        return
    while watch:
        # Home, the page, and the rest of the screen empty; a terminal shows it without flicker.
        _put(f"\x1b[H{_page(_found(given, paths or [])).replace(chr(10), _END_OF_LINE)}\x1b[J", None)
        _wait()
    found = _found(given, paths or [])
    _put(_json(found) if as_json else _page(found), file)
    if not found["projects"]:
        say("nothing is mirrored yet; run `mirror sync`")
    if found["config_error"]:
        leave(ExitCode.USAGE)


def _found(given: Invocation, paths: Sequence[str]) -> dict[str, Any]:
    """Everything that the page shows, as the documented JSON."""
    from mirror.query.status import mirror_status

    settings, config_error = _settings(given)
    daemon = _daemon(given)
    found = mirror_status(given.home.published, settings.sync.artifacts.patterns if settings else ())
    chosen = _chosen(given, paths, [project["project"] for project in found["projects"]])
    for name in ("projects", "lists_set_aside", "wide_faults"):
        found[name] = [one for one in found[name] if one["project"] in chosen]
    found["set_aside"] = [run for run in found["set_aside"] if run["run"].rpartition("/")[0] in chosen]
    return {
        "home": str(given.home.data),
        "config_error": config_error,
        "published": _published(given),
        "server": _server(given, settings),
        "daemon": daemon,
        "problems": _problems(daemon, found["projects"]),
        **found,
    }


def _chosen(given: Invocation, paths: Sequence[str], known: Sequence[str]) -> set[str]:
    """The names of the projects that the paths mean; all if there are none. Raises QueryError."""
    from mirror.snapshot.paths import Project, find_projects

    if not paths:
        return set(known)
    mirrored = [Project(*name.split("/", 1)) for name in known]
    return {str(project) for project in find_projects(None, paths, given.entity, mirrored)}


def _wait() -> None:
    time.sleep(WATCH_SECONDS)


def _check(given: Invocation, paths: Sequence[str], max_age: str | None, file: Path | None, *, as_json: bool) -> None:
    """Print one line per project and per problem; the exit code is the highest of theirs."""
    from mirror.query.health import judge
    from mirror.query.status import project_status
    from mirror.settings.settings import Settings
    from mirror.settings.values import Impossible, interval

    try:
        allowed = None if max_age is None else interval(max_age)
    except Impossible as error:
        raise UsageError(f"--max-age {error}") from None
    settings, config_error = _settings(given)
    verdicts = judge(settings or Settings(), project_status(given.home.published), allowed)
    if paths:
        chosen = _chosen(given, paths, [verdict.project for verdict in verdicts])
        verdicts = [verdict for verdict in verdicts if verdict.project in chosen]
    if not verdicts:
        if config_error:
            raise ConfigError(config_error)
        raise UsageError("nothing to check: nothing is mirrored, and the config names no projects (`mirror init`)")
    codes = {"ok": ExitCode.DONE, "failed": ExitCode.FAILED, "stale": ExitCode.LATE}
    problems = _problems(_daemon(given), ())
    if config_error:
        problems = [{"kind": "config", "level": "fail", "message": config_error}, *_but(problems, config_error)]
    worst = max(codes[verdict.state] for verdict in verdicts)
    if any(problem["level"] == "fail" for problem in problems):
        worst = max(worst, ExitCode.USAGE if config_error else ExitCode.FAILED)
    if as_json:
        verdicts_json = [verdict.as_json() for verdict in verdicts]
        _put(_json({"ok": not worst, "projects": verdicts_json, "problems": problems}), file)
    else:
        width = max(len(verdict.project) for verdict in verdicts)
        lines = [_line(verdict, width) for verdict in verdicts]
        lines += [f"problem  {one_line(problem['message'])}" for problem in problems]
        _put("".join(f"{line}\n" for line in lines), file)
    if worst:
        leave(worst)


def _line(verdict: Verdict, width: int) -> str:
    unknown = "unknown" if verdict.ahead else "never"
    ago = unknown if verdict.lag_s is None else f"{_age(verdict.lag_s)} ago"
    reason = f": {one_line(verdict.reason)}" if verdict.reason else ""
    return f"{verdict.project.ljust(width)}  {verdict.state:<6}  {ago}, {_age(verdict.allowed_s)} allowed{reason}"


def _put(text: str, file: Path | None) -> None:
    from mirror.cli.output import replaced, write_text

    if file is None:
        write_text(text)
        return
    with replaced(file) as scratch:
        scratch.write_text(text, encoding="utf-8")


def _json(value: object) -> str:
    return json.dumps(value, default=_text, indent=2) + "\n"


def _published(given: Invocation) -> dict[str, Any] | None:
    path = given.home.published
    return {"path": str(path), "bytes": path.stat().st_size} if path.exists() else None


def _settings(given: Invocation) -> tuple[Settings | None, str | None]:
    """Return the settings, or None and the error of the config."""
    try:
        return given.settings(), None
    except ConfigError as error:
        return None, str(error)


def _problems(daemon: dict[str, Any], projects: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return what does not work: the problems that the daemon reports, and times in the future."""
    from mirror.query.health import ahead

    found = list(daemon.get("problems", ()))
    if daemon["running"] and "pid" not in daemon:
        found.append({"kind": "daemon", "level": "fail", "message": daemon["error"]})
    return found + [
        {"kind": "clock", "level": "fail", "message": f"{project['project']}: {reason}"}
        for project in projects
        if (reason := ahead(project))
    ]


def _but(problems: Sequence[dict[str, str]], message: str) -> list[dict[str, str]]:
    return [problem for problem in problems if problem["message"] != message]


def _server(given: Invocation, settings: Settings | None) -> dict[str, Any]:
    """Return the server and the source of the key, never the key. All None if the config is invalid."""
    from mirror.settings import credentials

    if settings is None:
        return {"base_url": None, "credential": None, "credential_error": None}
    try:
        source, problem = credentials.find(settings.server.base_url, given.environ).source, None
    except AuthError as error:
        source, problem = None, str(error)
    return {"base_url": settings.server.base_url, "credential": source, "credential_error": problem}


def _daemon(given: Invocation) -> dict[str, Any]:
    from mirror.control import Control

    try:
        control = Control.find(given.home.socket)
        if control is None:
            return {"running": False}
        return {"running": True, **control.status()}
    except MirrorError as error:
        return {"running": True, "error": str(error)}


def _text(value: object) -> str:
    return f"{value.isoformat(timespec='seconds')}Z" if isinstance(value, datetime) else str(value)


def _page(found: dict[str, Any]) -> str:
    server, daemon, published = found["server"], found["daemon"], found["published"]
    lines = [f"home     {found['home']}"]
    if published:
        lines.append(f"mirror   {published['path']} ({size_text(published['bytes'])})")
    if error := found["config_error"]:
        lines.append(f"config   {one_line(error)}")
    else:
        lines.append(f"server   {server['base_url']}")
        lines.append(f"key      {server['credential'] or server['credential_error']}")
    if daemon["running"]:
        lines.append(f"daemon   running, pid {daemon.get('pid', '?')}, since {daemon.get('started_at', '?')}")
        if requests := daemon.get("requests"):
            lines.append(f"requests {sum(requests.values()):,} since it started{_budget(daemon.get('budget') or {})}")
        http = daemon.get("http") or {}
        if page := http.get("url") or http.get("error"):
            lines.append(f"page     {page}{' (`mirror open`)' if http.get('url') else ''}")
        if (lake := daemon.get("lake") or {}).get("url"):
            lines.append(f"lake     {lake['url']}{_exported(lake)}")
        if crash := daemon.get("last_crash"):
            lines.append(f"crash    {crash['what']} at {crash['at']}: {one_line(crash['error'])}; see mirror.log")
    else:
        lines.append("daemon   not running")
    # The problem of the page is already in the line "page".
    problems = [one for one in _but(found["problems"], found["config_error"] or "") if one["kind"] != "page"]
    lines += [f"problem  {one_line(problem['message'])}" for problem in problems]
    if found["projects"]:
        lines += ["", *_table(COLUMNS, [_row(project) for project in found["projects"]])]
    if faults := found["wide_faults"]:
        lines += ["", *(f'relation "{fault["project"]}": {one_line(fault["fault"])}' for fault in faults)]
    lines += [
        f"problem  the {one['list']} of {one['project']} were not pulled: {one_line(one['error'])}"
        for one in found["lists_set_aside"]
    ]
    if files := found["files"]:
        lines += ["", *_files(files)]
    if artifacts := found["artifacts"]:
        lines += ["", *_artifacts(artifacts)]
    if aside := found["set_aside"]:
        lines += _to_retry("to retry", "run", aside)
    return "".join(f"{line}\n" for line in lines)


def _exported(lake: dict[str, Any]) -> str:
    """Return the part of the line about the lake that shows how new it is."""
    state = f", as of {lake['snapshot_at']}Z" if lake["snapshot_at"] else ", not exported yet"
    return f"{state}, being exported" if lake["running"] else state


def _files(files: dict[str, Any]) -> list[str]:
    """Return the lines about the content of files."""
    last, failed = files["last"] or {}, files["failed"]
    left = [
        f"{last[name]:,} left out by sync.{setting}"
        for name, setting in (("beyond_run", "files_max"), ("beyond_budget", "files_budget"))
        if last.get(name)
    ]
    lines = ["; ".join([f"files    {files['files']:,} stored ({size_text(files['bytes'])})", *left])]
    if last.get("error"):
        lines.append(f"problem  files are not downloaded: {one_line(last['error'])}")
    named = [one | {"file": f"{one['run'] or one['artifact']}: {one_line(one['file'])}"} for one in failed]
    return lines + _to_retry("files to retry", "file", named)


def _artifacts(artifacts: dict[str, Any]) -> list[str]:
    """Return the lines about artifacts."""
    lines = [f"artifacts {artifacts['versions']:,}"]
    lines += [f"problem  {one['project']}: {one_line(one['error'])}" for one in artifacts["errors"]]
    lines += [f'problem  sync.artifacts: no artifact matches "{one}"' for one in artifacts["unmatched"]]
    return lines + _to_retry("artifacts to retry", "artifact", artifacts["failed"])


def _to_retry(heading: str, name: str, failed: list[dict[str, Any]]) -> list[str]:
    """Return a table of what failed, named by the field `name`; no lines if nothing failed."""
    if not failed:
        return []
    rows: list[tuple[str, ...]] = [
        (
            one[name],
            f"{one['attempts']:,}",
            f"{one['next_try_at']:%Y-%m-%d %H:%M:%S}" if one["next_try_at"] else "",
            one_line(one["error"]),
        )
        for one in failed[:MOST_SET_ASIDE]
    ]
    lines = ["", *_table((heading, "attempts", "next try", "error"), rows)]
    if len(failed) > MOST_SET_ASIDE:
        lines.append(f"... and {len(failed) - MOST_SET_ASIDE:,} more; --json has all of them")
    return lines


def _row(project: dict[str, Any]) -> tuple[str, ...]:
    success = project["last_success_at"]
    return (
        project["project"],
        f"{project['runs']:,}",
        f"{project['running']:,}",
        f"{project['history_rows']:,}",
        f"{success:%Y-%m-%d %H:%M:%S}" if success else "never",
        "unknown" if success and project["lag_s"] is None else _age(project["lag_s"]),
        f"{project['set_aside']:,}",
        project["last_error"] or "",
    )


def _table(header: Sequence[str], rows: list[tuple[str, ...]]) -> list[str]:
    """Return aligned lines; counts and times are right-aligned."""
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    right = {"runs", "running", "history rows", "lag", "attempts"} | ({"to retry"} - {header[0]})
    return [
        "  ".join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        ).rstrip()
        for row in [header, *rows]
    ]


def _age(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return ""
    whole = int(seconds)
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {small_unit}"
    return f"{whole} s"


def _budget(budget: dict[str, Any]) -> str:
    """Return the part of the line about requests that shows the server's quota and how many requests wait."""
    parts = [f"{budget['last_hour']:,} in the last hour"] if "last_hour" in budget else []
    if budget.get("left") is not None:
        each = f" (a request costs {budget['cost']:.3g})" if budget.get("cost") is not None else ""
        parts.append(f"{budget['left']:,.0f} left of its quota for the next {budget['resets_in_s']:.0f} s{each}")
    if budget.get("paused_for_s"):
        parts.append(f"paused for {budget['paused_for_s']:.0f} s as the server asked")
    if waiting := sum((budget.get("waiting") or {}).values()):
        parts.append(f"{waiting:,} waiting")
    return "".join(f", {part}" for part in parts)
