"""What pages quote is real: messages, commands and their options, figures, links."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from mirror.cli.app import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"```text\n(.*)\n```", TROUBLE)


@pytest.fixture(scope="module")
def source():
    """The texts in the program; an f-string as the pieces between what it inserts."""
    found = set()
    for path in (ROOT / "mirror").rglob("*.py"):
        if "sandbox" not in path.parts:
            nodes = ast.walk(ast.parse(path.read_text()))
            found.update(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {text for text in found if len(text) > 5}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_of_the_program(message, source):
    # What the page writes as `...` is inserted by the program.
    rest = list(message)
    for text in source:
        if (at := message.find(text)) >= 0:
            rest[at : at + len(text)] = "|" * len(text)
    assert not re.search(r"[a-z]{2}", "".join(rest)), "".join(rest)


def test_a_command_that_does_not_exist_is_noticed():
    root = get_command(app)
    assert root.get_command(None, "runs") is not None
    assert root.get_command(None, "nonsense") is None


def commands(text):
    """Every command of ours in a page: in blocks, on indented lines and between backticks."""
    lines = re.findall(r"^(?:\$ |    )(mirror .*)$", text, re.MULTILINE)
    return [*lines, *re.findall(r"`(mirror [^`\n]*)`", text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_that_a_page_names_exists_with_its_options(page):
    root = get_command(app)
    for line in commands(page.read_text()):
        try:
            words = shlex.split(line, comments=True)[1:]
        except ValueError:
            words = line.split()[1:]  # The rest of the statement is on the next lines.
        command = root
        for word in words:
            if word in ("|", "&&", ">", "&"):
                break
            name = word.split("=")[0]
            if hasattr(command, "commands") and not word.startswith("-"):
                if not (word.islower() and word.isalpha()):
                    break  # A placeholder, such as COMMAND.
                found = command.get_command(None, word)
                assert found, f"{page.name}: {line}"
                command = found
            elif re.fullmatch(r"--[a-z][a-z-]*|-[a-z]", name):
                known = {one for option in command.params for one in (*option.opts, *option.secondary_opts)}
                assert name in known | {"--help", "-h"}, f"{page.name}: {line}"


def test_the_readme_links_every_page():
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README.read_text()))
    assert linked == {page.name for page in DOCS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readmes_figures_are_those_of_the_figures():
    figures = (ROOT / "docs" / "figures.md").read_text()
    table = README.read_text().split("`wandb.Api` | |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[2:5]] for line in table.splitlines() if line.count("|") == 5]
    rows = [row for row in rows if any(set(cell) - {"-", " "} for cell in row)]
    assert len(rows) == 6
    for row in rows:
        parts = [part for cell in row for part in re.split(r" to ", cell)]
        assert any(all(part in line for part in parts) for line in figures.splitlines()), row
