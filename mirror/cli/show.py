"""`mirror show`: one run on one page."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mirror.cli import complete
from mirror.cli.invocation import invocation
from mirror.cli.output import write_text

MOST_LINES = 60
"""Lines of one part of the page; --json has everything."""

_FIRST = ("name", "state", "url")


def show(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="entity/project/run_id, or a run's id or name alone.", autocompletion=complete.runs
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show one run: fields, config, summary, last history rows, files, and how complete it is.

    Reads the mirror only; deleted runs are shown, too.
    """
    from mirror.query.run_page import page
    from mirror.snapshot.snapshot import Snapshot

    given = invocation(ctx)
    snapshot = Snapshot(given.home)
    found = page(snapshot, snapshot.address(run, given.entity, deleted=True))
    write_text(_json(found) if as_json else _page(found))


def _json(found: Mapping[str, Any]) -> str:
    from datetime import datetime

    from mirror.query.run_page import as_text
    from mirror.wandb_json import dumps

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(member) for name, member in value.items()}
        if isinstance(value, list):
            return [plain(member) for member in value]
        if isinstance(value, float) and value - value != 0:
            # Strict JSON has no NaN; `mirror query --json` writes them alike.
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124
        return as_text(value) if isinstance(value, datetime) else value

    return dumps(plain(found)) + "\n"


def _page(found: Mapping[str, Any]) -> str:
    from mirror.query.run_page import as_text, brief

    fields = found["fields"]
    order = [*_FIRST, *(name for name in fields if name not in _FIRST)]
    shown = {name: fields[name] for name in order if fields[name] not in (None, "", [])}
    if shown.get("tags"):
        shown["tags"] = ", ".join(shown["tags"])
    keys = found["history"]["keys"]
    lines = [found["run"], "", *_pairs({name: as_text(value) for name, value in shown.items()}), ""]
    lines += ["complete", *_pairs(_complete(found)), ""]
    for doc in ("config", "summary"):
        flat = {key: as_text(value) for key, value in _flat(found[doc]).items()}
        lines += [f"{doc} ({len(flat)})", *_pairs(flat), ""]
    if keys:
        rows = found["history"]["last_rows"]
        names = list(rows[0]) if rows else []
        lines += [
            f"history ({len(keys)} {'key' if len(keys) == 1 else 'keys'}), last rows",
            *_table(names, [[brief(row[name]) for name in names] for row in rows]),
            "",
        ]
    if found["files"]:
        listed = [[one["name"], one["size"], one["updated_at"]] for one in found["files"]]
        lines += [f"files ({len(listed)})", *_table(["name", "size", "updated_at"], listed[:MOST_LINES]), ""]
    return "\n".join(lines)


def _complete(found: Mapping[str, Any]) -> dict[str, str]:
    """How much of the run is mirrored, in words."""
    complete = found["complete"]
    rows, on_server = complete["history_rows"], complete["server_rows"]
    history = f"{rows:,} of {on_server:,} rows" if on_server else f"{rows:,} rows"
    if complete["last_step"] >= 0:
        history += f", last step {complete['last_step']:,}"
    lines, metrics = complete["console_lines"], complete["system_metric_lines"]
    deleted = found["fields"]["deleted_at"]
    at = complete["last_success_at"]
    words = {
        "history": history,
        "error": complete["error"] and f"{complete['error']} (will be retried)",
        "deleted": deleted and f"on the server, seen {deleted:%Y-%m-%d %H:%M}",
        "console": "not mirrored" if lines is None else f"{lines:,} lines",
        "system metrics": "not mirrored" if metrics is None else f"{metrics:,} lines" if metrics else "none",
        "files": "not mirrored" if found["files"] is None else f"{len(found['files']):,} listed",
        "last sync": f"{at:%Y-%m-%d %H:%M:%S}" if at else "never complete",
    }
    return {name: text for name, text in words.items() if text}


def _flat(document: Any, before: str = "") -> dict[str, Any]:
    """The values of nested objects by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            found.update(_flat(value, f"{before}{key}."))
        else:
            found[f"{before}{key}"] = value
    return found


def _pairs(values: Mapping[str, str]) -> list[str]:
    """Indented lines of name and value, the values below each other; at most MOST_LINES."""
    from mirror.query.formats import visible

    width = max((len(name) for name in values), default=0)
    room = shutil.get_terminal_size().columns - width - 4 if sys.stdout.isatty() else None
    lines = []
    for name, value in list(values.items())[:MOST_LINES]:
        text = visible(value)
        lines.append(
            f"  {visible(name).ljust(width)}  {text if room is None or len(text) <= room else text[: room - 1] + '…'}"
        )
    if len(values) > MOST_LINES:
        lines.append(f"  ... and {len(values) - MOST_LINES:,} more; --json has all of them")
    return lines


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    from mirror.query.run_page import as_text
    from mirror.query.table import lay_out

    texts = [tuple(None if value is None else as_text(value) for value in row) for row in rows]
    numeric = [all(row[at] is None or isinstance(row[at], int | float) for row in rows) for at in range(len(header))]
    width = shutil.get_terminal_size().columns - 2 if sys.stdout.isatty() else None
    return [f"  {line}" for line in lay_out(header, texts, numeric, width).lines]
