"""Asks for logged values: the lines of several runs in one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mirror.remote import queries
from mirror.remote.client import Server
from mirror.store.records import ProjectKey

SMALL_STEPS = 1000
"""A question for so many steps may be about what runs now; one for more is a backfill, and goes last."""


@dataclass(frozen=True)
class Window:
    """Steps `first` (inclusive) to `end` (exclusive) of one run."""

    run_id: str
    first: int
    end: int


async def fetch(server: Server, project: ProjectKey, windows: Sequence[Window]) -> dict[Window, list[str] | None]:
    """The raw history lines of each window, in one request; None for a run that the server does not have.

    Every line of a window comes, since as many samples are asked for as the window has steps.
    """
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project}
    for index, window in enumerate(windows):
        variables[f"run{index}"] = window.run_id
        variables[f"min{index}"] = window.first
        variables[f"max{index}"] = window.end
        variables[f"samples{index}"] = min(window.end - window.first, 2**31 - 1)
    bulk = sum(window.end - window.first for window in windows) > SMALL_STEPS
    data = await server.graphql("MirrorHistory", queries.history(len(windows)), variables, bulk=bulk)
    found = data.get("project") or {}
    answers = [found.get(f"r{index}") for index in range(len(windows))]
    return {
        window: (answer["history"] or []) if answer else None for window, answer in zip(windows, answers, strict=True)
    }


async def fetch_events(
    server: Server, project: ProjectKey, run_ids: Sequence[str], samples: int = 10_000
) -> dict[str, list[str]]:
    """The raw system metric lines of runs, in one request; W&B itself samples them. A run that is gone is left out."""
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project}
    for index, run_id in enumerate(run_ids):
        variables[f"run{index}"] = run_id
        variables[f"samples{index}"] = samples
    data = await server.graphql("MirrorEvents", queries.events(len(run_ids)), variables)
    found = data.get("project") or {}
    answers = [found.get(f"r{index}") for index in range(len(run_ids))]
    return {run_id: answer["events"] or [] for run_id, answer in zip(run_ids, answers, strict=True) if answer}
