"""How objects are shown in a notebook: the page of the W&B app in a frame, or a table."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, ClassVar


class Shown:
    """An object that has a page in the W&B app, and is shown as this page in a notebook."""

    _page_of: ClassVar[str]
    """What the page shows: "run", "project", "sweep" or "report"."""

    @property
    def url(self) -> str | None:
        """The address of the page on the server."""
        raise NotImplementedError

    def to_html(self, height: int = 420, hidden: bool = False) -> str:
        """Return an HTML frame that shows the page; with `hidden`, behind a button that reveals it."""
        return frame(self.url, height, hidden=self._page_of if hidden else None)

    def display(self, height: int = 420, hidden: bool = False) -> bool:
        """Show the page in a notebook; return False outside of one."""
        return display(self.to_html(height, hidden))

    def _repr_html_(self) -> str:
        return self.to_html()


def frame(url: str | None, height: int, *, hidden: str | None) -> str:
    """Return an HTML frame that shows a page of the app; `hidden` names it on a button that reveals the frame."""
    style = f"border:none;width:100%;height:{height}px;" + ("display:none;" if hidden else "")
    shows = "this.nextSibling.style.display='block';this.style.display='none';"
    button = f'<button onClick="{shows}">Display W&amp;B {hidden}</button>' if hidden else ""
    return f'{button}<iframe src="{html.escape(url or "")}?jupyter=true" style="{style}"></iframe>'


def rows(header: Sequence[str], cells: Sequence[Sequence[Any]], more: int) -> str:
    """Return an HTML table; `more` is the number of rows that it leaves out."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in cells)
    rest = f"<p>... and {more:,} more</p>" if more > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def display(text: str) -> bool:
    """Show HTML in a notebook; return False outside of one."""
    try:
        from IPython import display as shown
        from IPython import get_ipython
    except ImportError:
        return False
    shell: Any = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return False
    draw: Any = shown
    draw.display(draw.HTML(text))
    return True


def _cell(value: Any) -> str:
    return "" if value is None else html.escape(str(value))
