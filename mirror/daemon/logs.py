"""What the daemon logs: JSON lines in a file that is rotated, and on stderr what suits whoever reads that."""

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
"""The log is begun anew at this size; so many former ones are kept."""

_LEVELS = {-1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG}
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
_secrets: set[str] = set()

log = logging.getLogger("mirror.daemon")


def configure(home: Home, environ: Mapping[str, str], *, verbosity: int = 0) -> logging.Handler:
    """Log to `mirror.log` in the home and to stderr from now on; returns the handler of the file.

    `verbosity` is for stderr: -1 warnings and errors alone, 1 details too. The file has details only then.
    """
    file = _LogFile(home.log, maxBytes=LOG_BYTES, backupCount=LOG_FILES, delay=True, encoding="utf-8")
    file.setFormatter(JsonLines())
    shown = _Stderr(sys.stderr)
    shown.setFormatter(_for_stderr(sys.stderr, environ))
    shown.setLevel(_LEVELS[verbosity])
    root = logging.getLogger()
    root.handlers[:] = [file, shown]
    # Other people's libraries are heard when something is wrong.
    root.setLevel(logging.WARNING)
    logging.getLogger("mirror").setLevel(logging.DEBUG if verbosity > 0 else logging.INFO)
    # A pass that is still under way when the next is due is no news; jobs that raise are.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    # Anybody on the machine may send what is not HTTP to the port, as often as they like.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    return file


def hide(secret: str) -> None:
    """Never write this text, whatever message it may come in."""
    if secret:
        _secrets.add(secret)


def tell_pass(result: PassResult, former: PassResult | None) -> None:
    """One line a pass: project, runs, history rows, requests, seconds, and what went wrong.

    Runs that are set aside are worth a warning once, not at every pass: `former` is the project's pass before this.
    """
    counts = {
        "runs": result.runs,
        "rows": result.rows,
        "requests": result.requests,
        "seconds": round(result.seconds, 3),
    }
    text = f"{result.project}: " + ", ".join(_some(count, unit) for unit, count in counts.items())
    fields: dict[str, Any] = {"event": "pass", "project": str(result.project), **counts, "live": result.live}
    level = logging.INFO
    if result.failed:
        fields["failed"] = dict(sorted(result.failed.items()))
        fresh = [run_id for run_id in fields["failed"] if former is None or run_id not in former.failed]
        text += f"; {_some(len(result.failed), 'runs')} set aside"
        if fresh:
            level = logging.WARNING
            text += f", newly {fresh[0]} ({result.failed[fresh[0]]})"
            text += f" and {len(fresh) - 1:,} more" if len(fresh) > 1 else ""
    if result.error:
        level = logging.ERROR
        fields["error"] = result.error
        text += f"; failed: {result.error}"
    log.log(level, "%s", text, extra={"fields": fields})


def tell_end(file: logging.Handler, error: BaseException) -> None:
    """Write to the log file alone why the daemon ends; the command tells it on stderr."""
    trace = None if isinstance(error, MirrorError) else (type(error), error, error.__traceback__)
    text = f"ended: {error}" if trace is None else f"ended by an unexpected {type(error).__name__}: {error}"
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (text,), trace)
    file.handle(record)


def _some(count: float, unit: str) -> str:
    if unit == "seconds":
        return f"{count:.2f} s"
    return f"{count:,} {unit[:-1] if count == 1 else unit}"


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, message, the fields of the event, and the traceback of a crash."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
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
        """Time, level where it is worse than usual, and message."""
        return f"{_time(record)} {self.text(record)}"

    def text(self, record: logging.LogRecord) -> str:
        """The record without its time."""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]}; mirror.log has the traceback)"
        return without_secrets(level + one_line(text))


class Journal(Readable):
    """One line for journald, which adds the time itself; the number says how grave it is."""

    def format(self, record: logging.LogRecord) -> str:
        """Priority and message."""
        return f"<{_PRIORITIES.get(record.levelname, 6)}>{self.text(record)}"


def _for_stderr(stream: IO[str], environ: Mapping[str, str]) -> logging.Formatter:
    if stream.isatty():
        return Readable()
    return Journal() if _is_journal(stream, environ) else JsonLines()


def _is_journal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether the stream is the one that systemd connected to the journal: it tells its device and inode."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _time(record: logging.LogRecord, *, milliseconds: bool = False) -> str:
    part = f".{int(record.msecs):03d}" if milliseconds else ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}{part}Z"


def problem() -> str | None:
    """Why nothing is written to the log file, if that is so."""
    return next((handler.failing for handler in logging.getLogger().handlers if isinstance(handler, _LogFile)), None)


def without_secrets(text: str) -> str:
    """The text with every hidden one in it blotted out."""
    for secret in _secrets:
        text = text.replace(secret, "***")
    return text


class _LogFile(logging.handlers.RotatingFileHandler):
    """A file that only its owner reads. When it cannot be written, stderr says so once, and the daemon goes on."""

    failing: str | None = None
    """Why the last line could not be written."""

    _written = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; what was wrong before is forgotten when that goes well."""
        self._written = True
        super().emit(record)
        if self._written:
            self.failing = None

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """Tell once that nothing is written."""
        self._written = False
        if not self.failing:
            error = sys.exc_info()[1]
            reason = error.strerror if isinstance(error, OSError) else error
            self.failing = f"{self.baseFilename} cannot be written ({reason}); the log goes to stderr alone"
            log.warning("%s", self.failing)
            self._written = False
        del record


class _Stderr(logging.StreamHandler[Any]):
    """Stderr, which may have gone with the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """There is nowhere to tell of it; the file has everything."""
