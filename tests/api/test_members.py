"""Every public member of the official client's classes has its row in docs/python.md, and is there as the row says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.apis import public
from wandb.apis.public.summary import HTTPSummary

from mirror.api.api import Api
from mirror.api.artifact_lists import ArtifactCollection, ArtifactType
from mirror.api.artifacts import Artifact
from mirror.api.files import File, Files
from mirror.api.projects import Project, Projects, User
from mirror.api.run import Run
from mirror.api.runs import Runs
from mirror.api.summary import Summary
from mirror.api.sweeps import Sweep

OURS = {
    "Api": (public.Api, Api),
    "Runs": (public.Runs, Runs),
    "Run": (public.Run, Run),
    "Project": (public.Project, Project),
    "Projects": (public.Projects, Projects),
    "Sweep": (public.Sweep, Sweep),
    "File": (public.File, File),
    "Files": (public.Files, Files),
    "User": (public.User, User),
    "Artifact": (wandb.Artifact, Artifact),
    "ArtifactCollection": (public.ArtifactCollection, ArtifactCollection),
    "ArtifactType": (public.ArtifactType, ArtifactType),
    "HTTPSummary": (HTTPSummary, Summary),
}
ANSWERS = {
    *("mirror", "server", "server, then mirror", "mirror where it holds them, else server"),
    *("mirror where it holds the list, else server", "not here"),
}


def rows() -> list[tuple[str, str, str]]:
    """Class, who answers, and the members, of each row of the table."""
    text = (Path(__file__).parents[2] / "docs" / "python.md").read_text("utf-8")
    table = text.partition("## Every call of the official client")[2].partition("\n## ")[0]
    found = [line.strip("|").split("|", 2) for line in table.splitlines() if line.startswith("| ")]
    cells = [(cell[0].strip(" `"), cell[1].strip(), cell[2].strip()) for cell in found]
    return [row for row in cells if row[0] not in ("class", "---")]


def named(kind: str) -> dict[str, str]:
    """Who answers each member of a class."""
    found: dict[str, str] = {}
    for owner, answered, members in rows():
        if owner in (kind, "all"):
            listed = members.partition(":")[0] if answered == "not here" else members
            found |= dict.fromkeys(re.findall(r"`(\w+)`", listed), answered)
    return found


def members(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


@pytest.mark.parametrize("name", OURS)
def test_every_public_member_has_a_row(name: str) -> None:
    """And what a row says is here is here."""
    theirs, ours = OURS[name]
    reported = named(name)
    assert {answered for _, answered, _ in rows()} <= ANSWERS
    assert sorted(set(members(theirs)) - reported.keys()) == []
    made = set(getattr(ours, "__dataclass_fields__", ()))
    missing = [member for member, answered in reported.items() if answered != "not here"]
    assert [member for member in missing if not hasattr(ours, member) and member not in made] == []


@pytest.mark.parametrize("name", OURS)
def test_signatures_take_what_the_official_ones_take(name: str) -> None:
    """The same parameters in the same order; more of ours may follow."""
    theirs, ours = OURS[name]
    for member, answered in named(name).items():
        official = inspect.getattr_static(theirs, member, None)
        if answered == "not here" or official is None or isinstance(official, property):
            continue
        wanted = parameters(getattr(theirs, member))
        have = parameters(getattr(ours, member))
        if "args" in have:
            continue
        assert have[: len(wanted)] == wanted, (name, member)


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]
