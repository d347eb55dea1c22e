"""What a report holds, read from its spec. A spec is input that nobody checked: every part may be missing or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

_MOST_LEVELS = 40
"""How deep blocks may be nested; recursion ends there."""


class Span(Struct, frozen=True):
    """A piece of text in one style. `link` is an address, checked by who writes it; `latex` is a formula's source."""

    text: str
    styles: frozenset[str] = frozenset()
    link: str | None = None

    @property
    def is_code(self) -> bool:
        """Return True for code and formulas, which are shown as they are."""
        return bool(self.styles & {"code", "latex"})


Spans = Sequence[Span]


class Text(Struct, frozen=True):
    """A paragraph, a quote, a callout or a heading (`kind` is the name), with one line or several."""

    kind: str
    lines: Sequence[Spans]
    level: int = 0


class Item(Struct, frozen=True):
    """An entry of a list, with the blocks below it; `checked` is None without a box to tick."""

    spans: Spans
    blocks: Sequence[Block] = ()
    checked: bool | None = None


class Listing(Struct, frozen=True):
    """A list."""

    items: Sequence[Item]
    ordered: bool = False


class Source(Struct, frozen=True):
    """Text that is shown as it is: code, a formula, or Markdown (`kind`)."""

    kind: str
    text: str
    language: str = ""


class Table(Struct, frozen=True):
    """Rows of cells, the first one the header."""

    rows: Sequence[Sequence[Spans]]


class Away(Struct, frozen=True):
    """Something at another address: an image, a video, a link of a gallery."""

    kind: str
    address: str
    caption: str = ""


class Mark(Struct, frozen=True):
    """A line across the page (`rule`), or the place of the table of contents (`contents`)."""

    kind: str


class Missing(Struct, frozen=True):
    """What cannot be rendered, in its place: a sentence that names it."""

    what: str


class Grid(Struct, frozen=True):
    """Run sets and the panels that draw them, as the app stores them."""

    run_sets: Sequence[Mapping[str, Any]] = ()
    panels: Sequence[Mapping[str, Any]] = ()
    hides_run_sets: bool = False


Block = Text | Listing | Source | Table | Away | Mark | Missing | Grid

_STYLES = {
    **{name: name for name in ("bold", "italic", "underline", "strikethrough")},
    "inlineCode": "code",
    "inline_code": "code",
}
_PLACES = {"horizontal-rule": "rule", "table-of-contents": "contents"}
_LINES = {"block-quote": "quote", "callout-block": "callout"}


class Document(Struct, frozen=True):
    """The blocks of a report, top to bottom."""

    blocks: Sequence[Block] = field(default_factory=tuple)

    @property
    def headings(self) -> list[Text]:
        """Its headings, in order."""
        return [block for block in self.blocks if isinstance(block, Text) and block.kind == "heading"]


def read(spec: Any) -> Document:
    """Return what a spec holds. What is not known is named by a Missing in its place."""
    spec = spec if isinstance(spec, Mapping) else {}
    blocks = spec.get("blocks")
    if isinstance(blocks, list):
        return Document(tuple(_blocks(blocks, 0)))
    if spec:
        return Document(
            (Missing(f"its text: this report has the old form {spec.get('version', 'without a version')}"),)
        )
    return Document()


def _blocks(nodes: Any, level: int) -> list[Block]:
    if level > _MOST_LEVELS:
        return [Missing("more blocks, nested too deeply")]
    found: list[Block] = []
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, Mapping):
            found += _block(node, level)
    return found


def _block(node: Mapping[str, Any], level: int) -> list[Block]:
    kind = node.get("type")
    if kind in ("paragraph", "default", None):
        spans = _spans(node.get("children"))
        return [Text("paragraph", (spans,))] if any(span.text.strip() for span in spans) else []
    if kind == "heading":
        folded = _blocks(node.get("collapsedChildren"), level + 1)
        return [Text("heading", (_spans(node.get("children")),), _heading_level(node.get("level"))), *folded]
    if kind in _LINES:
        return [Text(_LINES[kind], _lines(node))]
    if kind in _PLACES:
        return [Mark(_PLACES[kind])]
    if kind == "list":
        items = [item for item in node.get("children") or () if isinstance(item, Mapping)]
        return [Listing([_item(item, level) for item in items], bool(node.get("ordered")))]
    if kind == "code-block":
        text = "\n".join("".join(span.text for span in line) for line in _lines(node))
        return [Source("code", text, _text(node.get("language")))]
    if kind == "latex":
        return [Source("latex", _text(node.get("content")))]
    if kind == "markdown-block":
        return [Source("markdown", _text(node.get("content")))]
    if kind == "table":
        return [Table(_rows(node))]
    if kind == "panel-grid":
        return [_grid(node.get("metadata"))]
    return _away(str(kind), node)


def _away(kind: str, node: Mapping[str, Any]) -> list[Block]:
    """Return what a block shows of another place, or a Missing for a block that is not known."""
    if kind in ("image", "video"):
        return [Away(kind, _text(node.get("url")), "".join(span.text for span in _spans(node.get("children"))))]
    if kind == "spotify":
        return [Away("Spotify track", f"https://open.spotify.com/track/{_text(node.get('spotifyID'))}")]
    if kind == "gallery":
        links = [link for link in node.get("links") or () if isinstance(link, Mapping)]
        found: list[Block] = [
            Away("link", _text(link.get("url")), _text(link.get("title")))
            if link.get("type") == "url"
            else Missing(f"the report {_text(link.get('id'))} of a gallery")
            for link in links
        ]
        return found or [Missing("a gallery of reports")]
    names = {"weave-panel": "a Weave panel", "twitter": "a post of Twitter", "soundcloud": "a SoundCloud player"}
    return [Missing(names.get(kind, f"a block of the type {kind[:60]!r}"))]


def _heading_level(level: Any) -> int:
    return min(max(level, 1), 5) if isinstance(level, int) and not isinstance(level, bool) else 1


def _item(node: Mapping[str, Any], level: int) -> Item:
    children = [child for child in node.get("children") or () if isinstance(child, Mapping)]
    below = [child for child in children if child.get("type") not in (None, "paragraph", "default", "link", "latex")]
    above = [child for child in children if child not in below]
    checked = node.get("checked")
    return Item(_spans(above), _blocks(below, level + 1), checked if isinstance(checked, bool) else None)


def _lines(node: Mapping[str, Any]) -> list[Spans]:
    """Return the lines of a block whose children are lines, or which is one line."""
    children = [child for child in node.get("children") or () if isinstance(child, Mapping)]
    if any("text" in child or child.get("type") in ("link", "latex") for child in children):
        return [_spans(children)]
    return [_spans(child.get("children")) for child in children]


def _rows(node: Mapping[str, Any]) -> list[list[Spans]]:
    rows = [row for row in node.get("children") or () if isinstance(row, Mapping)]
    return [
        [_spans(cell.get("children")) for cell in row.get("children") or () if isinstance(cell, Mapping)]
        for row in rows
    ]


def _spans(nodes: Any, link: str | None = None, level: int = 0) -> list[Span]:
    """Return the text of inline nodes; of nodes that are not known, the text below them."""
    found: list[Span] = []
    for node in nodes if isinstance(nodes, list) and level <= _MOST_LEVELS else ():
        if not isinstance(node, Mapping):
            continue
        if node.get("type") == "latex":
            found.append(Span(_text(node.get("content")), frozenset({"latex"}), link))
        elif "text" in node:
            styles = frozenset(name for key, name in _STYLES.items() if node.get(key))
            found.append(Span(_text(node["text"]), styles, link))
        else:
            below = _text(node.get("url")) if node.get("type") == "link" else link
            if found and node.get("type") == "paragraph":
                found.append(Span("\n"))
            found += _spans(node.get("children"), below, level + 1)
    return [span for span in found if span.text]


def _grid(metadata: Any) -> Block:
    if not isinstance(metadata, Mapping):
        return Missing("a panel grid without its settings")
    section = metadata.get("panelBankSectionConfig")
    panels = section.get("panels") if isinstance(section, Mapping) else None
    if not panels:
        panels = _old_panels(metadata.get("panels"))
    return Grid(_mappings(metadata.get("runSets")), _mappings(panels), bool(metadata.get("hideRunSets")))


def _old_panels(panels: Any) -> list[Any]:
    """Return the panels of a grid as they were stored before sections."""
    views = panels.get("views") if isinstance(panels, Mapping) else None
    each = (
        [view.get("config") for view in views.values() if isinstance(view, Mapping)]
        if isinstance(views, Mapping)
        else []
    )
    return [panel for config in each if isinstance(config, list) for panel in config]


def _mappings(values: Any) -> list[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
