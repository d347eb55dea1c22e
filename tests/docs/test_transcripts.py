"""Every console block of README and docs is run, in order, and prints what it shows.

A line `...` stands for any lines, and `...` within a line for any text. Lines that follow a `$` line are its output.
Blocks of one file share one home and one sample server; a block after `<!-- not run -->` is for reading only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mirror.sandbox import Sandbox, sample

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run -->\n+)?```console\n(.*?)```", re.DOTALL)


def steps(page: Path):
    """The commands of a page and the output that each shows."""
    found = []
    for not_run, block in BLOCK.findall(page.read_text()):
        if not_run:
            continue
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found and found[-1][0].endswith("\\"):
                found[-1] = (found[-1][0][:-1] + line.removeprefix("> "), [])
            else:
                found[-1][1].append(line)
    return [(command, "\n".join(lines).strip("\n")) for command, lines in found]


def as_pattern(shown: str) -> re.Pattern[str]:
    lines = []
    for line in shown.split("\n"):
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(".*?".join(re.escape(part.rstrip()) for part in line.split("...")) + r"[ ]*\n")
    return re.compile("".join(lines))


@pytest.mark.parametrize("page", [page for page in PAGES if steps(page)], ids=lambda page: page.name)
@pytest.mark.timeout(240)
def test_what_a_page_shows_is_what_the_commands_print(page):
    folder = Path(tempfile.mkdtemp(prefix="m"))
    try:
        with Sandbox(sample.full()) as server:
            environ = {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(folder),
                "MIRROR_HOME": str(folder / "home"),
                "WANDB_BASE_URL": server.url,
                "WANDB_API_KEY": server.key,
                "COLUMNS": "110",
                "NO_COLOR": "1",
                "LANG": "C.UTF-8",
            }
            for command, shown in steps(page):
                done = subprocess.run(
                    ["bash", "-c", command], env=environ, cwd=folder, capture_output=True, text=True, check=False
                )
                printed = done.stdout + done.stderr
                printed = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines()) + "\n"
                assert as_pattern(shown).fullmatch(printed if shown else ""), f"$ {command}\n{printed}"
    finally:
        shutil.rmtree(folder)
