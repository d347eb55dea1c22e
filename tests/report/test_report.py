"""`mirror report` lists the mirrored reports, and renders one as Markdown or as an HTML file that nothing escapes from."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import HOSTILE

VOID = {"meta", "img", "br", "hr"}
ALLOWED = VOID | set(
    re.findall(
        r"\w+",
        "html head title style body main header h1 h2 h3 h4 h5 h6 div p nav ul ol li a strong em u s code pre blockquote "
        "aside figure figcaption table thead tbody tr th td",
    )
)


class Reader(HTMLParser):
    """Collects elements, attributes and text, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_reports_are_listed(report: Any) -> None:
    done = report("--json")
    listed = (
        [json.loads(line) for line in done.stdout.splitlines()] if done.stdout[0] != "[" else json.loads(done.stdout)
    )
    assert [
        (one["project"], one["title"], one["author"]) for one in sorted(listed, key=lambda one: one["report_id"])
    ] == [
        ("team/p", "Which rate is best?", "ada"),
        ("team/p", HOSTILE, HOSTILE),
        ("team/p", "Damaged", "ada"),
        ("team/p", "Broken", "ada"),
        ("team/p", "Old", "ada"),
    ]
    assert report("team/p").stdout == report().stdout


EXPECTED = r"""# Which rate is best?

team/p · by ada · updated 2026-03-01 12:00 UTC · <URL>

The short answer first.

- [Summary](#section-1)
  - [Lists](#section-2)

<a id="section-1"></a>

## Summary

Plain, [a link](https://example.com/x), `code` and `e=mc^2`

<a id="section-2"></a>

### Lists

- one
- two

1. first
2. second

- [x] done
- [ ] open

> a quote

```python
print(1 < 2)
x = 3
```

```latex
\sum_i x_i
```

> careful!

**bold** and `code`

| a | b |
| - | - |
| 1 | 2 |

---

image: [an image](https://example.com/i.png)

video: [https://www.youtube.com/embed/x](https://www.youtube.com/embed/x)

**Loss**

![Loss](out_files/panel-1.png)

*smoothed by 0.5*

**Rates**

![Rates](out_files/panel-2.png)

*6 runs*

**Acc**

![Acc](out_files/panel-3.png)

*means of groups*

**one**

|  | mean |
| --- | --- |
| lr=0.01 | 0.4 |
| lr=0.1 | 0.4 |

*means*

> *Not rendered here: a parallel coordinates plot*

*in a panel*

> *Not rendered here: a run comparer*

> *Not rendered here: a media panel*

**Adam runs**: 4 of 4 runs of team/p; its order loss is not known: the newest runs are first · `{"$and":[{"config.optimizer.name":"adam"},{"state":"finished"}]}`

| name | state | created | seconds |
| --- | --- | --- | --- |
| run 0 | finished | 2026-03-01 12:00 |  |
| run 1 | finished | 2026-03-01 11:00 | 3600 |
| run 2 | finished | 2026-03-01 10:00 | 7200 |
| run 3 | finished | 2026-03-01 09:00 | 10800 |

**Grouped**: 6 of 6 runs of team/p; grouped by config.lr

| name | state | created | seconds |
| --- | --- | --- | --- |
| run 0 | finished | 2026-03-01 12:00 |  |
| run 1 | finished | 2026-03-01 11:00 | 3600 |
| run 2 | finished | 2026-03-01 10:00 | 7200 |
| run 3 | finished | 2026-03-01 09:00 | 10800 |
| run 4 | finished | 2026-03-01 08:00 | 14400 |
| run 5 | finished | 2026-03-01 07:00 | 18000 |
"""


def test_a_report_of_wandb_workspaces_as_markdown(report: Any) -> None:
    done = report("Which rate is best?", "-o", "out.md")
    assert (done.exit_code, done.data) == (0, b"")
    assert done.stderr == (
        "warning: not rendered: a parallel coordinates plot\nwarning: not rendered: a run comparer\n"
        "warning: not rendered: a media panel\nwritten to out.md\n"
    )
    text = Path("out.md").read_text()
    url = next(line.rpartition("<")[2].rstrip(">") for line in text.splitlines() if line.startswith("team/p · "))
    assert url.endswith("/team/p/reports/Which-rate-is-best--Vmlldzo1OTc5MjE")
    assert text.replace(url, "URL") == EXPECTED
    pictures = sorted(Path("out_files").iterdir())
    assert [path.name for path in pictures] == ["panel-1.png", "panel-2.png", "panel-3.png"]
    assert {path.read_bytes()[:8] for path in pictures} == {b"\x89PNG\r\n\x1a\n"}
    # By the address of its page, and to stdout, where pictures are named.
    shown = report(url).stdout
    assert shown.replace(url, "URL") == EXPECTED.replace(
        "![Loss](out_files/panel-1.png)", (named := "> *Not rendered here: a chart; \\`-o FILE.md\\` draws it*")
    ).replace("![Rates](out_files/panel-2.png)", named).replace("![Acc](out_files/panel-3.png)", named)


def test_a_hostile_report_is_text_in_html(report: Any) -> None:
    done = report(HOSTILE, "-o", "out.html")
    assert done.exit_code == 0, done.stderr
    page = Reader(Path("out.html").read_text())
    assert {tag for tag, _ in page.elements} <= ALLOWED
    assert {name for _, attributes in page.elements for name in attributes if name.startswith("on")} == set()
    assert [meta["content"] for meta in page.of("meta") if meta.get("http-equiv")] == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ]
    assert {str(image["src"]).partition(",")[0] for image in page.of("img")} == {"data:image/svg+xml;base64"}
    links = [str(link["href"]) for link in page.of("a")]
    assert {link.partition(":")[0] for link in links if not link.startswith("#")} <= {"http", "https"}
    assert "https://x.test/i.png" in links
    words = "".join(page.words)
    assert words.count(HOSTILE) > 10
    assert "the operator '\"><img src=x onerror=alert(1)><script>alert(1)</script>' is not known" in words


def test_a_hostile_report_is_text_in_markdown(report: Any) -> None:
    from markdown_it import MarkdownIt

    assert report(HOSTILE, "-o", "out.md").exit_code == 0
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(Path("out.md").read_text())
    page = Reader(f"<main>{rendered.replace('<br />', '<br>').replace('<hr />', '<hr>').replace(' />', '>')}</main>")
    assert {tag for tag, _ in page.elements} <= ALLOWED
    assert {name for _, attributes in page.elements for name in attributes} <= {"href", "id", "src", "alt", "class"}
    links = {str(link["href"]).partition(":")[0] for link in page.of("a") if "href" in link}
    assert {link for link in links if not link.startswith("#")} == {
        "http",
        "https",
        "unsafe-javascript",
        # The colon is text here.
        "javascript&#58;alert(1)",
    }


def test_what_cannot_be_rendered_is_named_in_its_place(report: Any) -> None:
    done = report("Damaged", "-o", "out.md")
    assert done.exit_code == 0, done.stderr
    text = Path("out.md").read_text()
    for named in (
        "a panel grid without its settings",
        "the report abc of a gallery",
        "its runs: team/other is not mirrored",
        "its runs: config.lr: the operator '\\~' is not known",
        "a line plot: none of the runs logged numbers under lost; did you mean loss?",
        "a line plot: it names no keys",
        "a line plot: its pattern of keys '(' cannot be read",
        "a scatter plot: it names no axes",
        "a bar chart: no run has a number under nothing",
        "a custom chart",
        "more blocks, nested too deeply",
    ):
        assert f"Not rendered here: {named}" in text, named
    assert "![](out_files/panel-1.png)\n\n*smoothed by 0.999*" in text
    assert "**good**: 6 of 6 runs of team/p" in text
    assert "off" not in text
    assert "not rendered: run set elsewhere: team/other is not mirrored" in done.stderr
    old = report("Old").stdout
    assert "> *Not rendered here: its text: this report has the old form 2*" in old


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "no report nothing is mirrored; there are "),
        (("Which rate is bst?",), "no report Which rate is bst? is mirrored; did you mean Which rate is best??"),
        (("Broken",), "the content of 'Broken' cannot be read: it is not JSON"),
        (("Old", "-o", "out.pdf"), "out.pdf has no known extension: use .md or .html"),
        (("-o", "out.md"), "which report? name one, as `mirror report` lists them"),
        (("Old", "--json"), "--format, --json and --csv go with the list of reports"),
    ],
)
def test_errors_are_one_line(report: Any, arguments: tuple[str, ...], message: str) -> None:
    done = report(*arguments)
    assert (done.exit_code, done.data, done.stderr.count("\n")) == (done.exit_code or 1, b"", 1)
    assert message in done.stderr
