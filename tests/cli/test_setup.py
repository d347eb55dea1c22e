from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.sandbox import Sandbox, World
from mirror.settings.home import Home
from mirror.settings.settings import load

OTHER = "fedcba9876543210fedcba9876543210fedcba98"


@pytest.fixture
def server(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(World()) as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        yield running


def test_init_writes_a_config_that_means_the_defaults(cli: Any, home: Home) -> None:
    """Every setting is there to be found, none is fixed."""
    outcome = cli("init", "team/vision", "team/*")
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert outcome.stderr == (
        f"wrote {home.config}: mirrors team/vision, team/*\n"
        "next: `mirror sync` pulls once, `mirror daemon` keeps the mirror up to date; before that, `mirror login` stores an API key\n"
    )
    assert load(home, {}).projects == ("team/vision", "team/*")
    assert '# interval = "5m"' in home.config.read_text(encoding="utf-8")


def test_init_takes_the_entity_from_the_environment(cli: Any, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file itself says it in full."""
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_API_KEY", OTHER)
    outcome = cli("init", "vision")
    assert outcome.stderr.endswith("next: `mirror sync` pulls once, `mirror daemon` keeps the mirror up to date\n")
    assert load(home, {}).projects == ("team/vision",)


def test_init_lists_what_can_be_mirrored(
    cli: Any, server: Sandbox, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The projects of the user's entities, or of those that are named; nothing is written."""
    monkeypatch.setenv("WANDB_API_KEY", server.key)
    for entity, project in (("team", "vision"), ("team", "audio"), ("lab", "robots")):
        server.world.add_run(entity, project, run_id="r", config={}, state="finished")
    listed = cli("init", "--list")
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert sorted(listed.stdout.splitlines()) == ["lab/robots", "team/audio", "team/vision"]
    assert cli("init", "--list", "team").stdout == "team/audio\nteam/vision\n"
    assert cli("init", "--list", "lab/*", "team/vis*").stdout == "lab/robots\nteam/vision\n"
    missing = cli("init", "--list", "nobody")
    assert (missing.exit_code, missing.stdout, missing.stderr) == (0, "", "the server lists no project\n")
    assert not home.config.exists()


def test_init_keeps_a_config_that_is_there(cli: Any, home: Home) -> None:
    """Unless it is reported."""
    home.data.mkdir()
    home.config.write_text("# mine\n", encoding="utf-8")
    outcome = cli("init", "team/vision")
    assert (outcome.exit_code, outcome.stderr) == (
        2,
        f"error: {home.config} exists: edit it, or replace it with `mirror init --force`\n",
    )
    assert home.config.read_text(encoding="utf-8") == "# mine\n"
    assert cli("init", "team/vision", "--force").exit_code == 0
    assert load(home, {}).projects == ("team/vision",)


def test_init_writes_through_links(cli: Any, home: Home) -> None:
    """Also where they lead to nothing yet; the file keeps its mode, and a circle of links is one line."""
    kept = home.data.parent / "dotfiles" / "mirror.toml"
    home.data.mkdir()
    home.config.symlink_to("../dotfiles/mirror.toml")
    assert home.data.parent.joinpath("dotfiles").exists() is False
    assert cli("init", "team/vision").exit_code == 0
    kept.chmod(0o640)
    assert cli("init", "team/audio", "--force").exit_code == 0
    assert (home.config.is_symlink(), stat.S_IMODE(kept.stat().st_mode)) == (True, 0o640)
    assert [path.name for path in kept.parent.iterdir()] == ["mirror.toml"]
    assert load(home, {}).projects == ("team/audio",)
    home.config.unlink()
    home.config.symlink_to("config.toml")
    outcome = cli("init", "team/vision")
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (2, 1)
    assert outcome.stderr.startswith(f"error: cannot write {home.config}: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: name at least one project: `mirror init my-team/vision`\n"),
        (["vision"], 'error: a project needs an entity: use "entity/vision" or set WANDB_ENTITY\n'),
        (["a/b/c"], 'error: a project must be "entity/project" or "entity/*", not "a/b/c"\n'),
    ],
)
def test_init_refuses_what_is_no_project(cli: Any, home: Home, arguments: list[str], message: str) -> None:
    """And writes nothing."""
    outcome = cli("init", *arguments)
    assert (outcome.exit_code, outcome.stderr) == (2, message)
    assert not home.config.exists()


def test_login_stores_a_key_that_the_server_takes(cli: Any, server: Sandbox, tmp_path: Path) -> None:
    """In netrc, 0600, as `wandb login` does; from an argument or from stdin."""
    outcome = cli("login", server.key)
    netrc = tmp_path / "user" / ".netrc"
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert outcome.stderr.endswith(f"the key for {server.url} is stored in {netrc}\n")
    assert server.key not in outcome.stderr
    host = server.url.removeprefix("http://")
    assert netrc.read_text(encoding="utf-8") == f"machine {host}\n  login user\n  password {server.key}\n"
    assert stat.S_IMODE(netrc.stat().st_mode) == 0o600
    netrc.unlink()
    assert cli("login", stdin=f"{server.key}\n").exit_code == 0
    assert netrc.exists()


def test_login_refuses_a_key_that_the_server_does_not_take(cli: Any, server: Sandbox, tmp_path: Path) -> None:
    """Nothing is stored, and the key is not shown."""
    outcome = cli("login", OTHER)
    assert (outcome.exit_code, outcome.stderr) == (
        3,
        f"error: {server.url} does not accept the API key; run `mirror login` or set WANDB_API_KEY\n",
    )
    assert list((tmp_path / "user").iterdir()) == []


def test_login_refuses_what_cannot_be_a_key(cli: Any, home: Home, tmp_path: Path) -> None:
    """Before any server hears of it."""
    for given in ("short", ""):
        outcome = cli("login", stdin=given)
        assert (outcome.exit_code, outcome.stderr) == (
            3,
            "error: this is not an API key, which has 40 or more letters, digits and _; nothing was stored\n",
        )
    assert list((tmp_path / "user").iterdir()) == []


def test_login_without_a_check_needs_no_server(
    cli: Any, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says when another key wins over the stored one."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    outcome = cli("login", OTHER, "--no-check")
    assert outcome.exit_code == 0
    assert outcome.stderr == (
        f"the key for http://127.0.0.1:9 is stored in {tmp_path / 'user' / '.netrc'}\n"
        "warning: WANDB_API_KEY is set to another key, which overrides the stored one\n"
    )


def test_login_to_a_server_that_is_not_there_stores_nothing(
    cli: Any, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning while it is tried, an error, exit code 3."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    outcome = cli("login", OTHER)
    reported = "cannot reach http://127.0.0.1:9 (Connection refused); check the network and WANDB_BASE_URL"
    warning, error = outcome.stderr.splitlines()
    assert warning.startswith(f"warning: {reported}; trying again for up to ")
    assert (outcome.exit_code, error) == (3, f"error: {reported}")
    assert list((tmp_path / "user").iterdir()) == []
