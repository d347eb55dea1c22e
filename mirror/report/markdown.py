"""A report as Markdown, with its pictures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import quote

from mirror.errors import MissingPackage
from mirror.report.addresses import is_safe
from mirror.report.document import Away, Block, Document, Grid, Item, Listing, Mark, Missing, Source, Span, Table, Text
from mirror.report.panels import Panel
from mirror.report.render import GridContent
from mirror.report.run_sets import RunSet
from mirror.snapshot.reports import Report

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
_LINE_START = re.compile(r"^(\s*)([-+=])", re.MULTILINE)
_NUMBERED = re.compile(r"^(\s*\d+)([.)])(?=\s|$)", re.MULTILINE)
_SCRIPTS = re.compile(r"(javascript|vbscript|data|file)(?=\s*:)", re.IGNORECASE)
_PIECES = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_MARKS = {"bold": "**", "italic": "*", "strikethrough": "~~"}


class Markdown:
    """Collects the parts; `text` is the file, and `pictures` are the files beside it, by name.

    Without a folder for pictures, they are named in their places.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.pictures: dict[str, bytes] = {}
        self._folder = folder
        self._parts: list[str] = []
        self._headings: list[Text] = []
        self._heading = 0
        self._anchors = False

    @property
    def text(self) -> str:
        """Return the file."""
        return "\n\n".join(part for part in self._parts if part) + "\n"

    def begin(self, report: Report, headings: Document) -> None:
        """Write the title, and who wrote the report when."""
        self._headings = headings.headings
        self._anchors = any(isinstance(block, Mark) and block.kind == "contents" for block in headings.blocks)
        facts = [_plain(f"{report.entity}/{report.project}")]
        facts += [f"by {_plain(report.author)}"] if report.author else []
        facts += [f"updated {report.updated_at:%Y-%m-%d %H:%M} UTC"] if report.updated_at else []
        facts += ["deleted on the server"] if report.deleted else []
        facts += [f"<{report.url}>"] if report.url and is_safe(report.url) and ">" not in report.url else []
        self._parts += [f"# {_plain(_one_line(report.title))}", " · ".join(facts), _plain(report.description or "")]

    def block(self, block: Block) -> None:
        """Write a block other than a grid."""
        self._parts.append(self._block(block))

    def grid(self, grid: GridContent) -> None:
        """Write the panels of a grid, then the tables of its run sets."""
        self._parts += [self._panel(panel) for panel in grid.panels]
        self._parts += [_run_set(each) for each in grid.run_sets if each.problem or not grid.hides_run_sets]

    def _block(self, block: Block) -> str:
        match block:
            case Text():
                return self._text(block)
            case Listing():
                return "\n".join(self._item(item, number, block) for number, item in enumerate(block.items, start=1))
            case Source(kind="markdown"):
                return harmless(block.text)
            case Source():
                return _fenced(block.text, block.language if block.kind == "code" else "latex")
            case Table():
                return _table([[_spans(cell) for cell in row] for row in block.rows])
            case Away():
                return _away(block)
            case Mark(kind="rule"):
                return "---"
            case Mark():
                return "\n".join(
                    f"{'  ' * (heading.level - 1)}- [{_plain(_words(heading))}](#section-{number})"
                    for number, heading in enumerate(self._headings, start=1)
                )
            case Missing():
                return _missing(block.what)
            case Grid():
                return ""

    def _text(self, block: Text) -> str:
        lines = [_spans(line) for line in block.lines]
        if block.kind == "heading":
            self._heading += 1
            anchor = f'<a id="section-{self._heading}"></a>\n\n' if self._anchors else ""
            return f"{anchor}{'#' * min(block.level + 1, 6)} {_one_line(' '.join(lines))}"
        if block.kind in ("quote", "callout"):
            return "\n".join(f"> {line}" for part in lines for line in part.split("\n"))
        return "  \n".join(lines)

    def _item(self, item: Item, number: int, listing: Listing) -> str:
        sign = f"{number}." if listing.ordered else "-"
        box = "" if item.checked is None else "[x] " if item.checked else "[ ] "
        first = f"{sign} {box}{_spans(item.spans)}"
        below = [self._block(block) for block in item.blocks]
        return "\n".join([first, *("   " + line for text in below for line in text.split("\n"))])

    def _panel(self, panel: Panel) -> str:
        parts = [f"**{_plain(_one_line(panel.title))}**"] if panel.title else []
        if panel.missing:
            parts.append(_missing(panel.missing))
        if panel.markdown:
            parts.append(harmless(panel.markdown))
        if panel.values:
            parts.append(_table([["", "mean"], *([_cell(name), _cell(value)] for name, value in panel.values)]))
        if panel.picture is not None:
            parts.append(self._picture(panel))
        if panel.notes:
            parts.append(f"*{_plain('; '.join(panel.notes))}*")
        return "\n\n".join(parts)

    def _picture(self, panel: Panel) -> str:
        assert panel.picture is not None
        if self._folder is None:
            return _missing("a chart; `-o FILE.md` draws it")
        try:
            content = panel.picture.render(".png", wide=panel.wide)
        except MissingPackage as error:
            return _missing(f"a chart: {error}")
        name = f"panel-{len(self.pictures) + 1}.png"
        self.pictures[name] = content
        return f"![{_plain(_one_line(panel.title))}]({quote(str(PurePosixPath(self._folder) / name))})"


def _spans(spans: Sequence[Span]) -> str:
    return "".join(_span(span) for span in spans)


def _span(span: Span) -> str:
    if span.is_code:
        ticks = "`" * (1 + max((len(run) for run in re.findall("`+", span.text)), default=0))
        pad = " " if span.text.startswith("`") or span.text.endswith("`") else ""
        text = f"{ticks}{pad}{_one_line(span.text)}{pad}{ticks}"
    else:
        text = _plain(span.text)
        # A mark must stand next to a letter.
        bare = text.strip()
        for style in sorted(span.styles & _MARKS.keys()) if bare else ():
            text = text.replace(bare, f"{_MARKS[style]}{bare}{_MARKS[style]}", 1)
            bare = f"{_MARKS[style]}{bare}{_MARKS[style]}"
    if span.link and is_safe(span.link):
        return f"[{text}]({quote(span.link, safe=':/?#[]@!$&*+,;=%~')})"
    return text


def _plain(text: str) -> str:
    """Return text in which Markdown finds no mark, no link and no HTML."""
    escaped = _SPECIAL.sub(r"\\\1", text)
    return _NUMBERED.sub(r"\1\\\2", _LINE_START.sub(r"\1\\\2", escaped))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _words(heading: Text) -> str:
    return _one_line("".join(span.text for line in heading.lines for span in line))


def harmless(text: str) -> str:
    """Return Markdown of a report without HTML and without links to scripts; code stays as it is.

    Ampersands are escaped, too: `javascript&#58;` is a script as well.
    """
    pieces = _PIECES.split(text)
    return "".join(
        piece if place % 2 else _SCRIPTS.sub(r"unsafe-\1", piece.replace("&", "&amp;").replace("<", "&lt;"))
        for place, piece in enumerate(pieces)
    )


def _fenced(text: str, language: str) -> str:
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{re.sub(r'[^A-Za-z0-9+-]', '', language)}\n{text}\n{ticks}"


def _away(block: Away) -> str:
    text = _plain(_one_line(block.caption or block.address or "without an address"))
    if not is_safe(block.address):
        return f"{block.kind}: {text}"
    return f"{block.kind}: [{text}]({quote(block.address, safe=':/?#[]@!$&*+,;=%~')})"


def _missing(what: str) -> str:
    return f"> *Not rendered here: {_plain(_one_line(what))}*"


def _run_set(each: RunSet) -> str:
    if each.problem or each.table is None:
        return f"**{_plain(_one_line(each.name))}**\n\n{_missing(f'its runs: {each.problem}')}"
    facts = [f"{len(each.table.rows):,} of {each.table.total:,} runs of {each.project}", *each.notes]
    facts += [f"grouped by {', '.join(each.groups)}"] if each.groups else []
    line = _plain("; ".join(facts)) + (
        f" · {_span(Span(each.condition, frozenset({'code'})))}" if each.condition else ""
    )
    rows = [[_cell(cell) for cell in row] for row in [each.table.columns, *each.table.rows]]
    return f"**{_plain(_one_line(each.name))}**: {line}\n\n{_table(rows)}"


def _cell(text: str) -> str:
    return _plain(_one_line(text))


def _table(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    width = max(len(row) for row in rows)
    lines = [[*row, *[""] * (width - len(row))] for row in rows]
    lines.insert(1, ["---"] * width)
    return "\n".join(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in row)} |" for row in lines)
