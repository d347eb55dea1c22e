"""The daemon's logs: JSON lines in a rotated file, and on stderr the format that suits its reader."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Mapping
from io import TextIOWrapper
from typing import IO, Any

from mirror.errors import MirrorError, one_line
from mirror.settings.home import Home
from mirror.sync.context import PassResult

LOG_BYTES = 10_000_000
LOG_FILES = 3
"""The log is rotated at this size; this many old files are kept."""

_LEVELS = {-1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG}
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
_secrets: set[str] = set()

log = logging.getLogger("mirror.daemon")


def configure(home: Home, environ: Mapping[str, str], *, verbosity: int = 0) -> logging.Handler:
    """Log to `mirror.log` in the home and to stderr from now on; return the handler of the file.

    `verbosity` applies to stderr: -1 only warnings and errors, 1 also details. The file has details only with 1.
    """
    file = _LogFile(home.log, maxBytes=LOG_BYTES, backupCount=LOG_FILES, delay=True, encoding="utf-8")
    file.setFormatter(JsonLines())
    shown = _Stderr(sys.stderr)
    shown.setFormatter(_for_stderr(sys.stderr, environ))
    shown.setLevel(_LEVELS[verbosity])
    root = logging.getLogger()
    root.handlers[:] = [file, shown]
    # Libraries may only log warnings and errors.
    root.setLevel(logging.WARNING)
    logging.getLogger("mirror").setLevel(logging.DEBUG if verbosity > 0 else logging.INFO)
    # A pass that is still under way when the next one is due is normal; a job that raises is not.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    # Any local user can send invalid HTTP to the port, as often as they like.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    return file


def hide(secret: str) -> None:
    """Never write this text, whatever message it may come in."""
    if secret:
        _secrets.add(secret)


def log_pass(result: PassResult, former: PassResult | None) -> None:
    """Log one line for a pass: project, runs, history rows, requests, seconds, and what went wrong.

    A failed run is a warning once, not at every pass: `former` is the project's previous pass. A pass that found
    nothing new is a detail, and so is not in the log without -v.
    """
    counts = {
        "runs": result.runs,
        "rows": result.rows,
        "requests": result.requests,
        "seconds": round(result.seconds, 3),
    }
    text = f"{result.project}: " + ", ".join(_some(count, unit) for unit, count in counts.items())
    fields: dict[str, Any] = {"event": "pass", "project": str(result.project), **counts, "live": result.live}
    level = logging.INFO if _is_news(result, former) else logging.DEBUG
    failures = (
        ("failed", "runs", result.failed, former and former.failed),
        ("failed_artifacts", "artifacts", result.failed_artifacts, former and former.failed_artifacts),
    )
    for name, unit, failed, before in failures:
        if not failed:
            continue
        fields[name] = dict(sorted(failed.items()))
        new = [path for path in fields[name] if path not in (before or {})]
        text += f"; {_some(len(failed), unit)} to retry"
        if new:
            level = logging.WARNING
            text += f", new: {new[0]} ({failed[new[0]]})"
            text += f" and {len(new) - 1:,} more" if len(new) > 1 else ""
    if result.error:
        level = logging.ERROR
        fields["error"] = result.error
        text += f"; failed: {result.error}"
    log.log(level, "%s", text, extra={"fields": fields})


def _is_news(result: PassResult, former: PassResult | None) -> bool:
    """Return True if a pass brought something, or the state of its project changed, also to "nothing failed"."""
    if former is None or result.runs or result.rows or result.deleted:
        return True
    return (former.error, former.live, former.failed.keys()) != (result.error, result.live, result.failed.keys())


def log_end(file: logging.Handler, error: BaseException) -> None:
    """Write why the daemon ends to the log file only; the command prints it on stderr."""
    trace = None if isinstance(error, MirrorError) else (type(error), error, error.__traceback__)
    text = f"ended: {error}" if trace is None else f"ended by an unexpected {type(error).__name__}: {error}"
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (text,), trace)
    file.handle(record)


def _some(count: float, unit: str) -> str:
    if unit == "seconds":
        return f"{count:.2f} s"
    return f"{count:,} {unit[:-1] if count == 1 else unit}"


class JsonLines(logging.Formatter):
    """One JSON object per line: time (UTC), level, message, the fields of the event, and the traceback of a crash."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        entry = {
            "time": _time(record, milliseconds=True),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if not record.name.startswith("mirror"):
            entry["logger"] = record.name
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(entry, default=str))


class Readable(logging.Formatter):
    """One line for a person; the traceback of a crash is in the file."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level if it is warning or worse, and message."""
        return f"{_time(record)} {self.text(record)}"

    def text(self, record: logging.LogRecord) -> str:
        """Return the record without its time."""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]}; mirror.log has the traceback)"
        return without_secrets(level + one_line(text))


class Journal(Readable):
    """One line for journald, which adds the time itself; the number is the priority."""

    def format(self, record: logging.LogRecord) -> str:
        """Return priority and message."""
        return f"<{_PRIORITIES.get(record.levelname, 6)}>{self.text(record)}"


def _for_stderr(stream: IO[str], environ: Mapping[str, str]) -> logging.Formatter:
    if stream.isatty():
        return Readable()
    return Journal() if _is_journal(stream, environ) else JsonLines()


def _is_journal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Return True if systemd connected the stream to the journal: JOURNAL_STREAM has its device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _time(record: logging.LogRecord, *, milliseconds: bool = False) -> str:
    part = f".{int(record.msecs):03d}" if milliseconds else ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}{part}Z"


def problem() -> str | None:
    """Return why the log file cannot be written, or None."""
    return next((handler.failing for handler in logging.getLogger().handlers if isinstance(handler, _LogFile)), None)


def without_secrets(text: str) -> str:
    """Return the text with every hidden secret replaced by ***."""
    for secret in _secrets:
        text = text.replace(secret, "***")
    return text


class _LogFile(logging.handlers.RotatingFileHandler):
    """A log file that only its owner may read. If it cannot be written, that is reported once on stderr."""

    failing: str | None = None
    """Why the last line could not be written."""

    _written = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; success clears an earlier failure."""
        self._written = True
        super().emit(record)
        if self._written:
            self.failing = None

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """Report once that the file cannot be written."""
        self._written = False
        if not self.failing:
            error = sys.exc_info()[1]
            reason = error.strerror if isinstance(error, OSError) else error
            self.failing = f"{self.baseFilename} cannot be written ({reason}); logging to stderr only"
            log.warning("%s", self.failing)
            self._written = False
        del record


class _Stderr(logging.StreamHandler[Any]):
    """Stderr, which may be closed together with its terminal."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """Do nothing: there is nowhere to report it, and the file has everything."""
