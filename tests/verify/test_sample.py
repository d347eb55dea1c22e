"""The whole sample data set is mirrored without a difference."""

from __future__ import annotations

import json

import pytest

from mirror.sandbox import Sandbox, sample


@pytest.mark.xdist_group("verified sample")
def test_a_mirror_of_the_full_sample_equals_the_server(home, cli, monkeypatch):
    with Sandbox(sample.full()) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", server.key)
        home.data.mkdir()
        home.config.write_text('projects = ["acme/*"]\n[sync]\nsystem_metrics = true\n')
        assert cli("sync").exit_code == 0
        for arguments in ((), ("--deep",)):
            answer = json.loads(cli("verify", "--json", *arguments).stdout)
            assert answer["equal"]
            assert len(answer["projects"]) == 4
            for project in answer["projects"]:
                assert (project["differences"], project["behind"], project["notes"]) == ([], [], [])
        assert all(project["values_compared"] == project["values"] > 0 for project in answer["projects"])
