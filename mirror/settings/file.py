"""The config file: parsed, with the line of each key for error messages."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from mirror.errors import ConfigError
from mirror.settings.values import Impossible, project_pattern, shown


class ConfigFile(Struct, frozen=True):
    """The parsed config file, its text for finding lines, and the dataclass of each possible table."""

    path: Path
    text: str
    values: dict[str, Any]
    sections: Mapping[str, Any]
    exists: bool

    @classmethod
    def read(cls, path: Path, sections: Mapping[str, Any], *, required: bool) -> ConfigFile:
        """Parse the file. A missing file counts as empty, unless it is required."""
        import tomllib

        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if required:
                raise ConfigError(f"{path} does not exist: run `mirror init` to write it") from None
            return cls(path, "", {}, sections, exists=False)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"cannot read {path}: {reason}") from None
        try:
            return cls(path, text, tomllib.loads(text), sections, exists=True)
        except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
            match = re.search(r"^(.*?) \(at line (\d+), column (\d+)\)$", str(error))
            line, reason = (match[2], match[1]) if match else (str(text.count("\n") + 1), str(error).split(" (at ")[0])
            raise ConfigError(f"{path}, line {line}: not valid TOML: {reason}") from None

    def section(self, name: str) -> Any:
        """Return one table as its dataclass, with every value parsed and checked."""
        kind = self.sections[name]
        table = self.values.get(name, {})
        if not isinstance(table, dict):
            raise self.error((name,), f"must be a table: write [{name}]")
        fields = {item.name: item for item in dataclasses.fields(kind)}
        self.refuse_unknown((name,), list(fields))
        given = {}
        for key, value in table.items():
            try:
                given[key] = fields[key].metadata["read"](value)
            except Impossible as error:
                raise self.error((name, key), str(error)) from None
        return kind(**given)

    def projects(self, entity: str | None) -> list[str]:
        """Return the patterns under `projects`, each with its entity."""
        value = self.values.get("projects", [])
        if not isinstance(value, list):
            raise self.error(("projects",), f'must be a list such as ["my-team/vision"], not {shown(value)}')
        patterns = []
        for item in value:
            try:
                patterns.append(project_pattern(item, entity))
            except Impossible as error:
                raise self.error(("projects",), f"{shown(item)} {error}", near=shown(item)) from None
        return patterns

    def has(self, section: str, key: str) -> bool:
        """Return True if the file itself sets this key."""
        return key in self.values.get(section, {})

    def refuse_unknown(self, path: tuple[str, ...], known: list[str]) -> None:
        """Raise ConfigError for the first unknown key."""
        table = self.values.get(path[0], {}) if path else self.values
        for key in table:
            if key in known:
                continue
            if re.sub(r"[-_]", "", key).lower() in ("apikey", "wandbapikey", "key", "token", "password"):
                hint = "a key is never kept in the config; remove it, and run `mirror login` or set WANDB_API_KEY"
            else:
                elsewhere = [
                    f"{name}.{key}" for name, kind in self.sections.items() if key in kind.__dataclass_fields__
                ]
                hint = f'did you mean "{elsewhere[0]}"?' if elsewhere else nearest(key, known)
            raise self.error((*path, key), f"unknown key, {hint}")

    def error(self, path: tuple[str, ...], reason: str, near: str | None = None) -> ConfigError:
        """Return an error that names the file, the line and the key."""
        return ConfigError(f"{self.path}, line {self.line(path, near)}: {'.'.join(path)}: {reason}")

    def line(self, path: tuple[str, ...], near: str | None = None) -> int:
        """Return the line of the key, or of its table; `near` is a text to search for from there on."""
        best, depth = 1, 0
        lines = self.text.splitlines()
        for number, keys in _written_keys(lines):
            shared = len(keys) if path[: len(keys)] == keys else 0
            if shared > depth:
                best, depth = number, shared
        last = path[-1] if near is None else near
        here = (number for number in range(best, len(lines) + 1) if last in lines[number - 1])
        return next(here, best) if near is not None or depth < len(path) else best


def _written_keys(lines: list[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the line numbers of table headers and assignments, each with its full key."""
    header: tuple[str, ...] = ()
    for number, line in enumerate(lines, 1):
        if match := re.match(r"\s*\[+\s*([^\[\]]+?)\s*\]+\s*(?:#|$)", line):
            header = _split_key(match[1])
            yield number, header
        elif match := re.match(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""", line):
            yield number, header + _split_key(match[1])


def _split_key(text: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(r""""[^"]*"|'[^']*'|[^.\s]+""", text))


def nearest(word: str, known: Sequence[str]) -> str:
    """Return a hint with the known word that was probably meant, or with all known words."""
    import difflib

    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else f"known: {', '.join(known)}"
