"""README and each page of docs, walked as a reader would: every command, in order, prints what the page shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import transcripts  # noqa: E402 - docs/ is not a package

pytestmark = [pytest.mark.xdist_group("transcripts"), pytest.mark.timeout(240)]

PAGES = transcripts.pages()
SYNCING = [page for page in PAGES if transcripts.needs_clean_home(page)]
READING = [page for page in PAGES if page not in SYNCING]


@pytest.fixture(scope="module")
def shared():
    """For pages whose commands only read."""
    with transcripts.reader(clean=False) as reader:
        yield reader


def walk(page, reader):
    for step in transcripts.steps(page.read_text()):
        printed = reader.run(step)
        assert transcripts.matches(step.shown, printed), f"$ {step.command}\n{printed}"


@pytest.mark.parametrize("page", SYNCING, ids=lambda page: page.name)
def test_a_page_that_starts_with_a_sync(page):
    with transcripts.reader(clean=True) as reader:
        walk(page, reader)


@pytest.mark.parametrize("page", READING, ids=lambda page: page.name)
def test_a_page_for_readers_of_a_mirror(page, shared):
    walk(page, shared)
