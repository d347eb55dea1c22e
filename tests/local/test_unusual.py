"""What lies about under the name of a run's file, and values that no reader takes: told by name, and the rest is read."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from tests.local.kit import now, run_file


def errors(done):
    found = json.loads(done.stdout)
    names = {result["path"].rpartition("/")[2]: result["error"] for result in found["results"] if result["error"]}
    return found["history_rows"], names


def test_only_regular_files_are_read(home, cli, sql, tmp_path, monkeypatch):
    """A FIFO never ends, as a device; links may lead in circles, nowhere, or to one of these."""
    run_file(tmp_path).lines(0, 3).exit()
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo.wandb")
    links = {"to-fifo": "fifo.wandb", "device": "/dev/zero", "circle": "circle.wandb", "broken": "nowhere", "here": "."}
    for name, target in links.items():
        Path(f"{name}.wandb").symlink_to(target)
    run_file(tmp_path / "folder.wandb" / "wandb", "r2").lines(0, 2).exit()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.wandb")
        done = cli("ingest", ".", "--json")
    assert done.exit_code == 1
    assert errors(done) == (
        5,
        {
            "fifo.wandb": "it is no regular file",
            "zero": "it is no regular file",
            "circle.wandb": "Too many levels of symbolic links",
            "nowhere": "No such file or directory",
            "socket.wandb": "it is no regular file",
        },
    )
    assert cli("ingest", "fifo.wandb").exit_code == 1
    assert sql("select run_id, state, history_rows from runs order by 1") == [
        ("r1", "finished", 3),
        ("r2", "finished", 2),
    ]


def test_a_fifo_in_the_place_of_a_known_file_or_of_its_log_is_not_waited_for(home, cli, sql, tmp_path):
    file = run_file(tmp_path, start=now()).lines(0, 3)
    (file.path.parent / "logs").mkdir()
    os.mkfifo(file.path.parent / "logs" / "debug.log")
    assert cli("ingest", str(tmp_path)).exit_code == 0
    old = run_file(tmp_path, "old").lines(0, 3)
    (old.path.parent / "logs").mkdir()
    os.mkfifo(old.path.parent / "logs" / "debug.log")
    assert cli("ingest", str(tmp_path)).exit_code == 0
    file.path.unlink()
    os.mkfifo(file.path)
    done = cli("ingest", str(tmp_path), "--json")
    assert (done.exit_code, errors(done)) == (1, (0, {"run-r1.wandb": "it is no regular file"}))
    assert sql("select run_id, state, history_rows from runs order by 1") == [
        ("old", "crashed", 3),
        ("r1", "running", 3),
    ]
