"""Draws the rooms of the code into docs/architecture.md, from contracts and imports; --check only compares."""

from __future__ import annotations

import sys
import tomllib
from itertools import chain, combinations
from pathlib import Path

import grimp

DOCS = Path(__file__).parent
PAGE = DOCS / "architecture.md"
BEGIN, END = "<!-- rooms: written by docs/rooms.py -->", "<!-- end of rooms -->"


def floors() -> list[list[str]]:
    """The rooms of each floor, the topmost first, as the first contract of pyproject.toml has them."""
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [
        [room.strip().removeprefix("mirror.") for room in floor.replace(":", "|").split("|")]
        for floor in contracts[0]["layers"]
    ]


def imports(rooms: list[str]) -> set[tuple[str, str]]:
    """The pairs of rooms of which the first imports the second."""
    graph = grimp.build_graph("mirror")
    found = set()
    for one, other in combinations(rooms, 2):
        for importer, imported in ((one, other), (other, one)):
            if graph.find_shortest_chains(f"mirror.{importer}", f"mirror.{imported}") and any(
                _within(source, importer) and graph.direct_import_exists(importer=source, imported=target)
                for target in graph.modules
                if _within(target, imported)
                for source in graph.find_modules_that_directly_import(target)
            ):
                found.add((importer, imported))
    return found


def _within(module: str, room: str) -> bool:
    return module == f"mirror.{room}" or module.startswith(f"mirror.{room}.")


def shortest(edges: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges without those that a longer way says as well."""
    after: dict[str, set[str]] = {}
    for importer, imported in edges:
        after.setdefault(importer, set()).add(imported)

    def reaches(start: str, goal: str) -> bool:
        left, seen = [room for room in after.get(start, ()) if room != goal], set()
        while left:
            room = left.pop()
            if room == goal:
                return True
            if room not in seen:
                seen.add(room)
                left += after.get(room, ())
        return False

    return sorted((importer, imported) for importer, imported in edges if not reaches(importer, imported))


def picture() -> str:
    """The rooms as a Mermaid flowchart: an arrow from each room to those that it imports."""
    levels = floors()
    lines = ["```mermaid", "flowchart TD"]
    for number, floor in enumerate(levels):
        lines.append(f"  subgraph floor{number}[ ]")
        lines.append("    direction LR")
        lines += [f"    {room}" for room in floor]
        lines.append("  end")
    lines += [
        f"  {importer} --> {imported}" for importer, imported in shortest(imports(list(chain.from_iterable(levels))))
    ]
    return "\n".join([*lines, "```"])


def main() -> None:
    """Write the picture, or with --check exit with an error where the page has another."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    wanted = f"{before}{BEGIN}\n{picture()}\n{END}{after}"
    if "--check" not in sys.argv:
        PAGE.write_text(wanted)
    elif text != wanted:
        sys.exit("docs/architecture.md has an old picture of the rooms: run `python docs/rooms.py`")


if __name__ == "__main__":
    main()
