"""The skill for coding agents: a Markdown file that teaches them the commands, the relations and the pitfalls."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from pathlib import Path

from mirror.errors import StoreError, UsageError
from mirror.version import VERSION

NAME = "wandb-mirror"
_MARK = re.compile(r"\n<!-- `mirror skill install` of wandb-mirror \S+ wrote this: ([0-9a-f]{16}) -->\n\Z")


def text() -> str:
    """The skill, in the format of SKILL.md: front matter, then Markdown."""
    return files("mirror.mcp").joinpath("skill.md").read_text(encoding="utf-8")


def install(folder: Path, *, force: bool = False) -> Path:
    """Write `folder/wandb-mirror/SKILL.md` and return its path.

    Raises UsageError if a file that this did not write, or that was edited since, is there, unless `force` is set.
    """
    path = folder / NAME / "SKILL.md"
    if not force and _is_foreign(path):
        raise UsageError(f"{path} was written or edited by others: move it away, or add --force to replace it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(_marked(text()), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _marked(content: str) -> str:
    return f"{content}\n<!-- `mirror skill install` of wandb-mirror {VERSION} wrote this: {_digest(content)} -->\n"


def _is_foreign(path: Path) -> bool:
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return True
    except OSError:
        # Nothing is there, or what is wrong with it is said when it is written.
        return False
    mark = _MARK.search(content)
    return mark is None or _digest(content[: mark.start()]) != mark[1]


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]
