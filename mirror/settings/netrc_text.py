"""Edits the text of a netrc file: replaces one host's entry and keeps every other character."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

_WORD = re.compile(r'"(?:\\.|[^"\\\n])*"?|(?:\\.|[^\s\\])+|\\')
"""A word as Python reads netrc: in quotes or up to white space; an unclosed quote ends with its line."""

_TOP = ("machine", "default", "macdef")
_FIELDS = ("login", "user", "account", "password")


class _Word(Struct, frozen=True):
    start: int
    end: int
    text: str


class _Entry(Struct, frozen=True):
    """`machine`, `default` or `macdef`, its name, and its position in the text."""

    kind: str
    name: str
    start: int
    end: int


def with_entry(text: str, host: str, key: str) -> str:
    """Return the text with one entry for the host, before `default`, where programs that read from the top stop.

    Earlier entries of the host are removed. Comments, macros, other hosts and line ends do not change.
    """
    ending = "\r\n" if "\r\n" in text else "\n"
    for entry in reversed([*_entries(text)]):
        if entry.kind == "machine" and entry.name == host:
            text = _without(text, entry)
    entries = [*_entries(text)]
    at = next((entry.start for entry in entries if entry.kind == "default"), len(text))
    before, after = text[:at], text[at:]
    if before and not before.endswith("\n"):
        before += ending
    last = next((entry for entry in reversed(entries) if entry.start < at), None)
    if last and last.kind == "macdef" and not re.search(r"\n[ \t\r]*\n\Z", before):
        before += ending  # Without an empty line at its end, a macro would include what follows.
    lines = (f"machine {_quoted(host)}", "  login user", f"  password {_quoted(key)}", "")
    return before + ending.join(lines) + after


def _without(text: str, entry: _Entry) -> str:
    """Return the text without an entry, and without its line if that has nothing else but a comment."""
    start, end = entry.start, entry.end
    alone = text[text.rfind("\n", 0, start) + 1 : start].strip() == ""
    rest = re.compile(r"[ \t]*(?:#[^\n]*)?\r?(?:\n|\Z)").match(text, end)
    if alone and rest:
        start, end = text.rfind("\n", 0, start) + 1, rest.end()
    return text[:start] + text[end:]


def _entries(text: str) -> Iterator[_Entry]:
    """Yield the top-level entries of the file, in order."""
    at = 0
    while word := _next(text, at):
        at = word.end
        if word.text.startswith("#"):
            at = _line_end(text, word.start)
        elif word.text == "macdef":
            name = _next(text, at)
            body = re.compile(r"\n[ \t\r]*\n").search(text, name.end if name else at)
            at = body.end() if body else len(text)
            yield _Entry("macdef", name.text if name else "", word.start, at)
        elif word.text in _TOP:
            name = _next(text, at) if word.text == "machine" else None
            at = _fields_end(text, name.end if name else at)
            yield _Entry(word.text, name.text if name else "", word.start, at)


def _fields_end(text: str, at: int) -> int:
    """Return where the fields of an entry end, including comments between them."""
    end = at
    while word := _next(text, at):
        if word.text.startswith("#"):
            at = _line_end(text, word.start)
            continue
        if word.text not in _FIELDS:
            break
        value = _next(text, word.end)
        at = end = value.end if value else word.end
    return end


def _next(text: str, at: int) -> _Word | None:
    found = _WORD.search(text, at)
    if found is None:
        return None
    raw = found[0]
    if len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "\"'":  # the official client quotes as a shell does
        raw = raw[1:-1]
    return _Word(found.start(), found.end(), re.sub(r"\\(.)", r"\1", raw))


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _quoted(word: str) -> str:
    if re.fullmatch(r"[^\s\"\\#][^\s\"\\]*", word):
        return word
    escaped = re.sub(r'(["\\])', r"\\\1", word)
    return f'"{escaped}"'
