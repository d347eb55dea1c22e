"""Every Python session of docs/python.md gives what it shows, in order, against the full sample."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pandas as pd

from mirror.sandbox import sample
from tests.api.conftest import bench

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"```pycon\n(.*?)```", re.DOTALL)


def test_the_sessions_of_the_page():
    text = "\n".join(BLOCK.findall(PAGE.read_text()))
    session = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    assert len(session.examples) > 30
    reported: list[str] = []
    with bench(sample.full()), pd.option_context("display.width", 100):
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        doctest.DocTestRunner(optionflags=options).run(session, out=reported.append)
    assert not reported, "".join(reported)
