"""`mirror status`: how fresh the mirror is, where the key comes from, and whether a daemon runs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say
from mirror.errors import AuthError, MirrorError

COLUMNS = ("project", "runs", "running", "history rows", "last success", "lag", "set aside", "last error")


def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, for scripts.")] = False,
) -> None:
    """Show freshness, lag, row counts and the last error of each project, the key's source and the daemon.

    Nothing is asked of the W&B server.
    """
    from mirror.query.status import project_status

    given = invocation(context)
    found = {
        "home": str(given.home.data),
        "published": _published(given),
        "server": _server(given),
        "daemon": _daemon(given),
        "projects": project_status(given.home.published),
    }
    typer.echo(json.dumps(found, default=_text, indent=2) if as_json else _page(found))
    if not found["projects"]:
        say("nothing is mirrored yet; run `mirror sync`")


def _published(given: Invocation) -> dict[str, Any] | None:
    path = given.home.published
    return {"path": str(path), "bytes": path.stat().st_size} if path.exists() else None


def _server(given: Invocation) -> dict[str, Any]:
    """The server and the source of the key; never the key."""
    from mirror import credentials

    settings = given.settings()
    try:
        source, problem = credentials.find(settings.server.base_url, given.environ).source, None
    except AuthError as error:
        source, problem = None, str(error)
    return {"base_url": settings.server.base_url, "credential": source, "credential_error": problem}


def _daemon(given: Invocation) -> dict[str, Any]:
    from mirror.daemon.client import Control

    control = Control.find(given.home.socket)
    if control is None:
        return {"running": False}
    try:
        return {"running": True, **control.status()}
    except MirrorError as error:
        return {"running": True, "error": str(error)}


def _text(value: object) -> str:
    return f"{value.isoformat(timespec='seconds')}Z" if isinstance(value, datetime) else str(value)


def _page(found: dict[str, Any]) -> str:
    server, daemon, published = found["server"], found["daemon"], found["published"]
    lines = [f"home     {found['home']}"]
    if published:
        lines.append(f"mirror   {published['path']} ({_size(published['bytes'])})")
    lines.append(f"server   {server['base_url']}")
    lines.append(f"key      {server['credential'] or server['credential_error']}")
    if daemon["running"]:
        lines.append(f"daemon   running, pid {daemon.get('pid', '?')}, since {daemon.get('started_at', '?')}")
        if requests := daemon.get("requests"):
            lines.append(f"requests {sum(requests.values()):,} since it started{_budget(daemon.get('budget') or {})}")
        http = daemon.get("http") or {}
        if told := http.get("url") or http.get("error"):
            lines.append(f"page     {told}{' (`mirror open`)' if http.get('url') else ''}")
        lines += [f"problem  {daemon[key]}" for key in ("error", "config_error") if daemon.get(key)]
    else:
        lines.append("daemon   not running")
    if found["projects"]:
        lines += ["", *_table([_row(project) for project in found["projects"]])]
    return "\n".join(lines)


def _row(project: dict[str, Any]) -> tuple[str, ...]:
    success = project["last_success_at"]
    return (
        project["project"],
        f"{project['runs']:,}",
        f"{project['running']:,}",
        f"{project['history_rows']:,}",
        f"{success:%Y-%m-%d %H:%M:%S}" if success else "never",
        _age(project["lag_s"]),
        f"{project['set_aside']:,}",
        project["last_error"] or "",
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[index]) for row in [COLUMNS, *rows]) for index in range(len(COLUMNS))]
    left = {0, 4, 7}
    return [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [COLUMNS, *rows]
    ]


def _age(seconds: float | None) -> str:
    """A length of time in the two largest units that say something."""
    if seconds is None:
        return ""
    whole = int(seconds)
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {small_unit}"
    return f"{whole} s"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _budget(budget: dict[str, Any]) -> str:
    """What the server allows, as far as it says, and who waits for it."""
    parts = [f"{budget['last_hour']:,} in the last hour"] if "last_hour" in budget else []
    if budget.get("left") is not None:
        parts.append(f"{budget['left']:,.0f} left for the next {budget['resets_in_s']:.0f} s")
    if budget.get("paused_for_s"):
        parts.append(f"the server wants quiet for {budget['paused_for_s']:.0f} s")
    if waiting := sum((budget.get("waiting") or {}).values()):
        parts.append(f"{waiting:,} waiting")
    return "".join(f", {part}" for part in parts)
