"""A report as one HTML file that loads nothing and runs nothing, whatever its author wrote into it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from mirror.errors import MissingPackage
from mirror.report.addresses import is_safe
from mirror.report.document import Away, Block, Document, Grid, Item, Listing, Mark, Missing, Source, Span, Table, Text
from mirror.report.panels import Panel
from mirror.report.render import GridContent
from mirror.report.run_sets import RunSet
from mirror.snapshot.reports import Report

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_TAGS = {"bold": "strong", "italic": "em", "underline": "u", "strikethrough": "s", "code": "code", "latex": "code"}


class Page:
    """Collects the parts of the page; `html` is the whole file."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._title = ""
        self._headings: list[Text] = []
        self._heading = 0

    @property
    def html(self) -> str:
        """Return the file."""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="referrer" content="no-referrer">'
            f"<title>{escape(self._title)}</title><style>{_style()}</style></head><body><main>\n"
            + "\n".join(self._parts)
            + "\n</main></body></html>\n"
        )

    def begin(self, report: Report, headings: Document) -> None:
        """Write the title, and who wrote the report when."""
        self._title, self._headings = report.title, headings.headings
        facts = [f"{report.entity}/{report.project}"]
        facts += [f"by {report.author}"] if report.author else []
        facts += [f"updated {report.updated_at:%Y-%m-%d %H:%M} UTC"] if report.updated_at else []
        facts += ["deleted on the server"] if report.deleted else []
        line = escape(" · ".join(facts))
        if report.url and is_safe(report.url):
            line += f' · <a href="{escape(report.url)}" rel="noopener noreferrer">in the app</a>'
        about = f"<p>{escape(report.description)}</p>" if report.description else ""
        self._parts.append(f'<header><h1>{escape(report.title)}</h1><div class="dim">{line}</div>{about}</header>')

    def block(self, block: Block) -> None:
        """Write a block other than a grid."""
        self._parts.append(self._block(block))

    def grid(self, grid: GridContent) -> None:
        """Write the panels of a grid, then the tables of its run sets."""
        if grid.panels:
            self._parts.append(f'<div class="panels">{"".join(_panel(panel) for panel in grid.panels)}</div>')
        for each in grid.run_sets:
            if each.problem or not grid.hides_run_sets:
                self._parts.append(_run_set(each))

    def _block(self, block: Block) -> str:
        match block:
            case Text():
                return self._text(block)
            case Listing():
                tag = "ol" if block.ordered else "ul"
                return f"<{tag}>{''.join(self._item(item) for item in block.items)}</{tag}>"
            case Source(kind="markdown"):
                return markdown(block.text)
            case Source():
                label = f'<div class="dim">{escape(block.language)}</div>' if block.language else ""
                return f"{label}<pre><code>{escape(block.text)}</code></pre>"
            case Table():
                return _table([[_spans(cell) for cell in row] for row in block.rows])
            case Away():
                return f"<p>{_away(block)}</p>"
            case Mark(kind="rule"):
                return "<hr>"
            case Mark():
                return self._contents()
            case Missing():
                return _missing(block.what)
            case Grid():
                return ""

    def _text(self, block: Text) -> str:
        inner = "<br>".join(_spans(line) for line in block.lines)
        if block.kind == "heading":
            self._heading += 1
            level = min(block.level + 1, 6)
            return f'<h{level} id="section-{self._heading}">{inner}</h{level}>'
        tag = {"quote": "blockquote", "callout": "aside"}.get(block.kind, "p")
        return f"<{tag}>{inner}</{tag}>"

    def _item(self, item: Item) -> str:
        box = "" if item.checked is None else "☑ " if item.checked else "☐ "
        below = "".join(self._block(block) for block in item.blocks)
        kind = ' class="box"' if box else ""
        return f"<li{kind}>{box}{_spans(item.spans)}{below}</li>"

    def _contents(self) -> str:
        entries = "".join(
            f'<li style="padding-left:{(heading.level - 1) * 18}px"><a href="#section-{number}">'
            f"{escape(''.join(span.text for line in heading.lines for span in line))}</a></li>"
            for number, heading in enumerate(self._headings, start=1)
        )
        return f"<nav><ul>{entries}</ul></nav>"


def _style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def _spans(spans: Sequence[Span]) -> str:
    return "".join(_span(span) for span in spans)


def _span(span: Span) -> str:
    text = escape(span.text).replace("\n", "<br>")
    for style in sorted(span.styles):
        text = f"<{_TAGS[style]}>{text}</{_TAGS[style]}>"
    if span.link and is_safe(span.link):
        return f'<a href="{escape(span.link)}" rel="noopener noreferrer">{text}</a>'
    return text


def _away(block: Away) -> str:
    text = escape(block.caption or block.address or "without an address")
    if not is_safe(block.address):
        return f"{escape(block.kind)}: {text}"
    return f'{escape(block.kind)}: <a href="{escape(block.address)}" rel="noopener noreferrer">{text}</a>'


def _missing(what: str) -> str:
    return f'<p class="missing">Not rendered here: {escape(what)}</p>'


def _panel(panel: Panel) -> str:
    title = f"<figcaption>{escape(panel.title)}</figcaption>" if panel.title else ""
    notes = f'<div class="dim">{escape("; ".join(panel.notes))}</div>' if panel.notes else ""
    body = _missing(panel.missing) if panel.missing else ""
    if panel.markdown:
        body += markdown(panel.markdown)
    if panel.values:
        body += _table([["", "mean"], *([escape(name), escape(value)] for name, value in panel.values)])
    if panel.picture is not None:
        try:
            data = base64.b64encode(panel.picture.render(".svg", wide=panel.wide)).decode()
            body += f'<img alt="{escape(panel.title)}" src="data:image/svg+xml;base64,{data}">'
        except MissingPackage as error:
            body += _missing(f"a chart: {error}")
    return f'<figure class="{"wide" if panel.wide else "half"}">{title}{body}{notes}</figure>'


def _run_set(each: RunSet) -> str:
    head = f'<div class="set">{escape(each.name)}</div>'
    if each.problem or each.table is None:
        return head + _missing(f"its runs: {each.problem}")
    facts = [f"{len(each.table.rows):,} of {each.table.total:,} runs of {each.project}", *each.notes]
    facts += [f"grouped by {', '.join(each.groups)}"] if each.groups else []
    line = f'<div class="dim">{escape("; ".join(facts))}'
    line += f" · <code>{escape(each.condition)}</code></div>" if each.condition else "</div>"
    rows = [[escape(cell) for cell in row] for row in each.table.rows]
    return head + line + _table([[escape(name) for name in each.table.columns], *rows])


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are HTML; the first row is the header."""
    if not rows:
        return ""
    numeric = [all(_is_number(row[place]) for row in rows[1:] if place < len(row)) for place in range(len(rows[0]))]
    tag = ["" if not number or len(rows) == 1 else ' class="number"' for number in numeric]
    head = "".join(f"<th{kind}>{cell}</th>" for cell, kind in zip(rows[0], tag, strict=True))
    each = (zip(row, [*tag, *[""] * len(row)], strict=False) for row in rows[1:])
    body = "".join(f"<tr>{''.join(f'<td{kind}>{cell}</td>' for cell, kind in row)}</tr>" for row in each)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _is_number(cell: str) -> bool:
    try:
        float(cell or 0)
    except ValueError:
        return False
    return True


def markdown(text: str) -> str:
    """Return Markdown as HTML. HTML in it is shown as text, and pictures are links: nothing is loaded."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    vars(parser)["validateLink"] = is_safe

    def image(tokens: Any, place: int, _options: Any, _environment: Any) -> str:
        token = tokens[place]
        address = str(token.attrs.get("src", ""))
        return _away(Away("image", address, token.content))

    parser.add_render_rule("image", lambda _self, *rest: image(*rest))
    return str(parser.render(text))
