"""The state of mirror and daemon as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.daemon.problems import KINDS
from mirror.errors import MirrorError
from mirror.query.health import ahead
from mirror.query.status import content_status, project_status
from mirror.settings.home import Home
from mirror.version import VERSION

if TYPE_CHECKING:
    from starlette.routing import Route

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float | None]


def text(home: Home, daemon: Mapping[str, Any] | None) -> str:
    """Return all metrics; `daemon` is the answer to `GET /status`, or None when no daemon runs.

    Reads the published file and the sizes of the files: call it in a thread. Raises StoreError when the published file
    cannot be read. Counters start at 0 with the daemon.
    """
    projects = project_status(home.published)
    families = [*_mirrored(projects), *_files(home)]
    families.append(_family("daemon_up", "Whether a daemon runs.", [({}, _bit(daemon))]))
    if daemon is not None:
        families += _daemon(daemon)
    families.append(_problems(projects, daemon))
    return "".join(families)


def route(home: Home, status: Callable[[], Mapping[str, Any]]) -> Route:
    """Return the route `GET /metrics` for the daemon's HTTP port."""
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    async def metrics(request: Request) -> Response:
        del request
        try:
            content = await asyncio.to_thread(text, home, status())
        except MirrorError as error:
            return PlainTextResponse(f"{error}\n", 500)
        return Response(content, media_type=CONTENT_TYPE)

    return Route("/metrics", metrics, methods=["GET"])


def _mirrored(found: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    projects = [({"project": project["project"]}, project) for project in found]
    for name, help_text, value in (
        ("project_runs", "Runs on the server that are mirrored.", lambda found: found["runs"]),
        ("project_running_runs", "Runs that are running.", lambda found: found["running"]),
        ("project_history_rows", "Mirrored history rows.", lambda found: found["history_rows"]),
        ("project_set_aside_runs", "Runs that failed and will be retried.", lambda found: found["set_aside"]),
        ("project_failing", "Whether the last pass failed.", lambda found: _bit(found["last_error"])),
        ("project_lag_seconds", "Time since the last good pass.", lambda found: found["lag_s"]),
        (
            "project_last_success_timestamp_seconds",
            "When the last good pass ended.",
            lambda found: _epoch(found["last_success_at"]),
        ),
    ):
        yield _family(name, help_text, [(labels, value(project)) for labels, project in projects])


def _files(home: Home) -> Iterable[str]:
    content = content_status(home.published, most=0) or {"files": 0, "bytes": 0}
    yield _family("content_files", "Contents of files that are stored.", [({}, content["files"])])
    yield _family("content_bytes", "Their bytes.", [({}, content["bytes"])])
    sizes = {
        "state": _size(home.state),
        "published": _size(home.published),
        "history": sum(_size(path) or 0 for path in home.history.rglob("*.parquet")),
        "log": _size(home.log),
    }
    samples: list[Sample] = [({"file": name}, size) for name, size in sizes.items()]
    yield _family("file_bytes", "Size of the files of the mirror.", samples)
    yield _family("info", "The version that wrote this.", [({"version": VERSION}, 1)])


def _daemon(daemon: Mapping[str, Any]) -> Iterable[str]:
    def by(label: str, values: Mapping[str, Any]) -> list[Sample]:
        return [({label: name}, value) for name, value in sorted(values.items())]

    def of_passes(key: str) -> list[Sample]:
        return [({"project": name}, found[key]) for name, found in sorted(daemon["last_passes"].items())]

    started = datetime.fromisoformat(daemon["started_at"])
    yield _family("daemon_start_timestamp_seconds", "When the daemon started.", [({}, started.timestamp())])
    yield _counter("requests_total", "Requests sent to the server.", by("operation", daemon["requests"]))
    yield _counter("request_retries_total", "Requests that were tried again.", by("operation", daemon["retries"]))
    yield _counter("received_bytes_total", "Bytes received from the server.", [({}, daemon["bytes_received"])])
    quota = daemon["budget"]
    yield _family("quota_left", "Rest of the server's quota, in its own units.", [({}, quota["left"])])
    yield _family("quota_per_request", "How much of it a request uses, as learned.", [({}, quota["cost"])])
    passes: list[Sample] = []
    for project, counts in sorted(daemon["passes"].items()):
        passes.append(({"project": project, "result": "ok"}, counts["total"] - counts["failed"]))
        passes.append(({"project": project, "result": "failed"}, counts["failed"]))
    yield _counter("passes_total", "Passes over a project.", passes)
    yield _family("last_pass_seconds", "How long the last pass took.", of_passes("seconds"))
    yield _family("last_pass_requests", "Requests that the last pass sent.", of_passes("requests"))
    yield _family("last_pass_history_rows", "History rows that the last pass pulled.", of_passes("history_rows"))
    yield from _downloads(daemon["files"])
    yield from _lake(daemon["lake"])
    published = daemon["published"]
    yield _counter("publications_total", "Replacements of mirror.duckdb.", [({}, published["count"])])
    yield _counter("publish_seconds_total", "Time spent on them.", [({}, published["seconds"])])
    yield _family("last_publish_seconds", "How long the last replacement took.", [({}, published["last_seconds"])])
    yield _counter("publish_failures_total", "Attempts to replace it that failed.", [({}, published["failed"])])
    yield _family(
        "writer_busy_seconds", "How long the writer's current work has taken.", [({}, daemon["writer_busy_s"])]
    )


def _downloads(files: Mapping[str, Any]) -> Iterable[str]:
    totals, last = files["totals"], files["last"] or {}
    rounds = totals["rounds"] - totals["failed_rounds"]
    results: list[Sample] = [({"result": "ok"}, rounds), ({"result": "failed"}, totals["failed_rounds"])]
    yield _family("downloads_running", "Whether files are being downloaded.", [({}, _bit(files["running"]))])
    yield _counter("download_rounds_total", "Rounds of downloads.", results)
    yield _counter("downloaded_files_total", "Files whose content was stored.", [({}, totals["stored"])])
    yield _counter(
        "downloaded_bytes_total", "Bytes of content that were downloaded.", [({}, totals["downloaded_bytes"])]
    )
    yield _counter("converted_tables_total", "W&B Tables that were converted.", [({}, totals["tables"])])
    yield _family("failed_files", "Files that failed in the last round, to be retried.", [({}, last.get("failed"))])


def _lake(lake: Mapping[str, Any]) -> Iterable[str]:
    totals, last = lake["totals"], lake["last"] or {}
    done = totals["exports"] - totals["failed_exports"]
    results: list[Sample] = [({"result": "ok"}, done), ({"result": "failed"}, totals["failed_exports"])]
    yield _counter("lake_exports_total", "Exports to the lake.", results)
    yield _counter("lake_bytes_total", "Bytes that were written to it.", [({}, totals["bytes"])])
    yield _family("lake_last_export_seconds", "How long the last export took.", [({}, last.get("seconds"))])
    at = None if lake["snapshot_at"] is None else _epoch(datetime.fromisoformat(lake["snapshot_at"]))
    yield _family("lake_snapshot_timestamp_seconds", "When the exported state was published.", [({}, at)])


def _problems(projects: Sequence[Mapping[str, Any]], daemon: Mapping[str, Any] | None) -> str:
    """Return one sample per kind of problem, 1 if there is one; `clock` is also detected without a daemon."""
    found: dict[str, bool] = {"clock": any(ahead(dict(project)) for project in projects)}
    if daemon is not None:
        found |= dict.fromkeys(KINDS, False) | {problem["kind"]: True for problem in daemon["problems"]}
        found["crash"] = bool(daemon["last_crash"])
    samples: list[Sample] = [({"kind": kind}, _bit(there)) for kind, there in sorted(found.items())]
    return _family("problem", "Whether `mirror status` reports such a problem.", samples)


def _counter(name: str, help_text: str, samples: Iterable[Sample]) -> str:
    return _family(name, help_text, samples, kind="counter")


def _family(name: str, help_text: str, samples: Iterable[Sample], kind: str = "gauge") -> str:
    """Return one metric with its samples, without those that have no value; "" if no sample is left."""
    lines = [f"mirror_{name}{_labels(labels)} {value!r}" for labels, value in samples if value is not None]
    if not lines:
        return ""
    return "\n".join([f"# HELP mirror_{name} {help_text}", f"# TYPE mirror_{name} {kind}", *lines, ""])


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _bit(value: object) -> int:
    return int(bool(value))


def _epoch(moment: datetime | None) -> float | None:
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
