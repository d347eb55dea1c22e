"""Fills the transcripts of README.md and docs/ with what the commands print on the demo's projects.

Each ```console block is run, in order, against the sample server of `mirror demo`, and so is each ```python block.
Lines that follow a `$` line are its output, those that begin with `>` the rest of the command. A line `...` stands for
any lines, and `...` within a line for any text; output that still matches is left as it is. A block after
`<!-- not run -->` is for reading only.

A page whose first command is `mirror sync` starts with a clean home, any other one with a home that has acme/vision and
acme/language.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mirror.sandbox import Sandbox, sample

ROOT = Path(__file__).parents[1]
WIDTH = 110
BLOCK = re.compile(r"(<!-- not run -->\n+)?```(console|python)\n(.*?)```", re.DOTALL)


@dataclass
class Step:
    """A command, what the page shows of its output, and where in the page that is."""

    command: str
    shown: str
    start: int
    end: int
    python: bool = False


def pages() -> list[Path]:
    """README.md and docs/*.md, those that have something to run."""
    return [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if steps(page.read_text())]


def steps(text: str) -> list[Step]:
    """What a reader of this page runs, in order."""
    found: list[Step] = []
    for block in BLOCK.finditer(text):
        not_run, language, content = block.groups()
        if not_run:
            continue
        if language == "python":
            found.append(Step(content, "", block.end(3), block.end(3), python=True))
            continue
        at = block.start(3)
        for line in content.splitlines(keepends=True):
            at += len(line)
            if line.startswith("$ "):
                found.append(Step(line[2:].rstrip("\n"), "", at, at))
            elif line.startswith("> ") and not found[-1].shown:
                found[-1].command += "\n" + line[2:].rstrip("\n")
                found[-1].start = found[-1].end = at
            else:
                found[-1].shown += line
                found[-1].end = at
    return found


def needs_clean_home(page: Path) -> bool:
    """Return True if the page itself shows the first sync."""
    return steps(page.read_text())[0].command.startswith("mirror sync")


@dataclass
class Reader:
    """Somebody with an empty folder, the program and a key for the sample server."""

    folder: Path
    environ: dict[str, str]

    def run(self, step: Step) -> str:
        """Return what the terminal shows; a Python block that fails shows its traceback."""
        command = [sys.executable, "-c", step.command] if step.python else ["bash", "-c", step.command]
        ours, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
        # Tables are the default on a terminal. Messages go to a pipe: progress bars are not part of a transcript.
        with subprocess.Popen(
            command,
            env=self.environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.PIPE,
        ) as process:
            os.close(terminal)
            with ThreadPoolExecutor(1) as pool:
                data = pool.submit(_everything, ours)
                messages = process.communicate(timeout=120)[1]
        lines = (data.result() + messages).decode().replace("\r\n", "\n").strip("\n").splitlines()
        return "".join(f"{line.rstrip()}\n" for line in lines)


def _everything(terminal: int) -> bytes:
    """Read until the other end is closed, and close this one."""
    pieces = []
    try:
        while piece := os.read(terminal, 1 << 16):
            pieces.append(piece)
    except OSError as error:
        # Linux reports the end of a terminal as an error.
        if error.errno != errno.EIO:
            raise
    finally:
        os.close(terminal)
    return b"".join(pieces)


@contextmanager
def reader(*, clean: bool) -> Iterator[Reader]:
    """A reader with a home of their own: a clean one, or one that mirrors acme/vision and acme/language."""
    folder = Path(tempfile.mkdtemp(prefix="m"))
    try:
        with Sandbox(sample.full()) as server:
            environ = {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(folder),
                "MIRROR_HOME": str(folder / "home"),
                "WANDB_BASE_URL": server.url,
                "WANDB_API_KEY": server.key,
                "COLUMNS": str(WIDTH),
                "NO_COLOR": "1",
                "LANG": "C.UTF-8",
            }
            (folder / "sql").symlink_to(ROOT / "sql")
            made = Reader(folder, environ)
            if not clean:
                made.run(Step("mirror sync acme/vision acme/language", "", 0, 0))
            yield made
    finally:
        shutil.rmtree(folder)


def matches(shown: str, printed: str) -> bool:
    """Return True if the output is what the page shows of it."""
    pattern = []
    for line in shown.strip("\n").splitlines():
        if line.strip() == "...":
            pattern.append(r"(?:.*\n)*?")
        else:
            pattern.append(".*?".join(re.escape(part.rstrip()) for part in line.split("...")) + r"[ ]*\n")
    return re.fullmatch("".join(pattern), printed) is not None


def main() -> int:
    """Write the pages; with names of pages, only those."""
    chosen = [page for page in pages() if not sys.argv[1:] or page.name in sys.argv[1:]]
    with reader(clean=False) as shared:
        for page in chosen:
            if needs_clean_home(page):
                with reader(clean=True) as own:
                    _fill(page, own)
            else:
                _fill(page, shared)
    return 0


def _fill(page: Path, by: Reader) -> None:
    text = page.read_text()
    outputs = [(step, by.run(step)) for step in steps(text)]
    for step, printed in reversed(outputs):
        if step.python and printed:
            print(f"{page.name}: a Python block failed:\n{printed}", file=sys.stderr)
        elif not step.python and not matches(step.shown, printed):
            print(f"{page.name}: $ {step.command}", file=sys.stderr)
            text = text[: step.start] + printed + text[step.end :]
    page.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
