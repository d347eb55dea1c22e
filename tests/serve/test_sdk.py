"""The unmodified SDK reads the same from the mirror, with the server switched off, as it read from the server."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mirror.sandbox import sample
from tests.serve.conftest import SCRIPT, served

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def plain(value: Any) -> Any:
    """2.0 as 2, and the words for what JSON has no number for as these numbers: the mirror tells neither apart."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return WORDS.get(value, value) if isinstance(value, str) else value


def shown(answers: list[Any]) -> dict[str, str]:
    return {name: repr(plain(value)) for name, value in answers}


def script(*paths: str) -> str:
    return SCRIPT.read_text().replace("sys.argv[1:]", repr(list(paths)))


@pytest.mark.xdist_group("sdk")
def test_a_script_reads_the_same_with_the_server_switched_off() -> None:
    """Configs, summaries, histories, scans, filters, orders, lengths, slices, samples: over every oddity there is."""
    world = sample.small()
    for run in world.projects["my-team", "vision"].runs.values():
        for name in ("notes.txt", "output.log", "media/images/ü %.png"):
            run.add_file(name, f"{name} of {run.run_id}")
    with served(world, '["my-team/*"]') as site:
        site.until(lambda: site.sql("select count(*) from files where name = 'notes.txt'")[0][0] == 5)
        expected = shown(site.script(site.server, script()))
        site.server.stop()
        found = shown(site.script(site.address, script()))
    assert len(expected) > 130
    assert {name: found.get(name) for name in expected} == expected
    assert found.keys() == expected.keys()


@pytest.mark.soak
def test_a_script_reads_the_same_of_realistic_runs() -> None:
    """Forty runs of a large sample. Not from exports: of these the SDK makes rows that hold None for every other key."""
    world = sample.full()
    for path in list(world.projects):
        if path != ("acme", "language"):
            del world.projects[path]
    project = world.projects["acme", "language"]
    for run_id in list(project.runs)[40:]:
        del project.runs[run_id]
    for run in project.runs.values():
        run.exports.clear()
        run.exported_to = -1
    text = script("acme/language").split("run = api.run(")[0].replace('"my-team"', '"acme"')
    with served(world, '["acme/*"]') as site:
        expected = shown(site.script(site.server, text))
        site.server.stop()
        found = shown(site.script(site.address, text))
    assert {name: found.get(name) for name in expected} == expected
