"""What pages quote is real: messages, commands and their options, figures, links."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
from typer.main import get_command

from mirror.cli.app import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"```text\n(.*)\n```", TROUBLE)


def texts(node):
    """The texts that a node of the source makes, as patterns with holes for what is inserted."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(texts(part) if isinstance(part, ast.Constant) else ".+?" for part in node.values)
    return None


@pytest.fixture(scope="module")
def source():
    """Every text in the program that could be a message."""
    found = set()
    for path in (ROOT / "mirror").rglob("*.py"):
        if "sandbox" not in path.parts:
            found.update(map(texts, ast.walk(ast.parse(path.read_text()))))
    return {text for text in found if text and len(text) > 12}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_of_the_program(message, source):
    # What the page writes as `...` is inserted by the program, in part from other texts of the source.
    shown = [part for part in re.split(r"\.\.\.", message) if len(part.strip(" ();:.`'")) > 3]
    pieces = [re.sub(r"\\(.)", r"\1", piece) for text in source for piece in text.split(".+?")]
    rest = message
    for piece in sorted({piece for piece in pieces if len(piece) > 3 and piece in message}, key=len, reverse=True):
        rest = rest.replace(piece, "")
    assert shown
    assert len(re.sub(r"[^a-z]", "", rest)) <= len(re.sub(r"[^a-z]", "", message)) // 10, rest


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
        command, context = root, click.Context(root)
        for word in words:
            if word in ("|", "&&", ">", "&"):
                break
            name = word.split("=")[0]
            if isinstance(command, click.Group) and not word.startswith("-"):
                if not (word.islower() and word.isalpha()):
                    break  # A placeholder, such as COMMAND.
                found = command.get_command(context, word)
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
    cells = {cell for row in rows for cell in row if cell and set(cell) - {"-", " "}}
    assert len(cells) > 12
    for cell in cells:
        for part in re.split(r" to ", cell):
            assert part in figures, part
