"""The file stream: how a run's process appends history, system metrics and console lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mirror.sandbox import jsontext
from mirror.sandbox.errors import Refused
from mirror.sandbox.run import Run

HISTORY = "wandb-history.jsonl"
EVENTS = "wandb-events.jsonl"
SUMMARY = "wandb-summary.json"
OUTPUT = "output.log"


def receive(run: Run, body: Mapping[str, Any]) -> dict[str, Any]:
    """Apply one request of the stream, and return the server's answer to the process.

    Lines are stored by their offset, so a repeated request adds nothing twice. Content that is not a list of strings is
    refused, and nothing is changed.
    """
    files = {name: _content(name, chunk) for name, chunk in (body.get("files") or {}).items()}
    with run.clock.lock:
        for name, (offset, lines) in files.items():
            if name == HISTORY:
                run.history.write(offset, lines)
            elif name == EVENTS:
                run.events.write(offset, lines)
            elif name == OUTPUT:
                run.write_console(offset, lines)
            elif name == SUMMARY and lines:
                run.set_summary(jsontext.read(lines[-1]))
        if body.get("complete"):
            code = int(body.get("exitcode") or 0)
            run.finish("finished" if code == 0 else "failed", code)
        else:
            if body.get("preempting"):
                run.state = "preempting"
            elif run.state == "crashed":
                # It was marked as crashed only because it had been silent for too long.
                run.state, run.exitcode = "running", None
            run.heartbeat()
        return {"exitcode": run.exitcode, "limits": {}, "stopped": run.stop_requested}


def _content(name: str, chunk: Any) -> tuple[int, Sequence[str]]:
    lines = chunk.get("content") if isinstance(chunk, dict) else None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise Refused(f"{name}: content is not a list of lines", 400)
    if name in (HISTORY, EVENTS, SUMMARY):
        for line in lines:
            try:
                value = jsontext.read(line)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                raise Refused(f"{name}: a line is not a JSON object: {line[:80]}", 400)
    return int(chunk.get("offset") or 0), lines
