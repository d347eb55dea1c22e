"""Addresses of pages, as the official client makes them."""

from __future__ import annotations

import pytest

from mirror.addresses import app_of, app_url, path_of
from mirror.errors import ConfigError

APPS = {
    "https://api.forge.coreweave.com": "https://forge.coreweave.com/wandb",
    "https://api.wandb.ai": "https://forge.coreweave.com/wandb",
    "https://api.qa.forge.coreweave.com": "https://qa.forge.coreweave.com/wandb",
    "https://api.qa.wandb.ai": "https://qa.forge.coreweave.com/wandb",
    "https://api.wandb.test": "https://app.wandb.test",
    "https://api.wandb.example.com": "https://wandb.example.com",
    "https://api.example.com/base": "https://app.example.com/base",
    "https://wandb.example.com": "https://wandb.example.com",
    "https://my-api.example.com": "https://my-api.example.com",
    "http://localhost:8080": "http://localhost:8080",
}


@pytest.mark.parametrize(("api", "app"), APPS.items())
def test_the_app_of_an_api(api: str, app: str) -> None:
    """The official client, where it is installed, says the same."""
    assert app_of(api) == app_of(f"{api}/") == app
    theirs = pytest.importorskip("wandb.util")
    assert theirs.api_to_app_url(api) == app


def test_the_environment_wins() -> None:
    """Without its last slash; what is no address is named."""
    assert app_url("https://api.wandb.ai", {"WANDB_APP_URL": "https://app.example.com/wandb/ "}) == (
        "https://app.example.com/wandb"
    )
    assert app_url("https://api.wandb.ai", {"WANDB_APP_URL": ""}) == APPS["https://api.wandb.ai"]
    for wrong in ("app.example.com", "ftp://x", "https://", "https://a b", "https://[x"):
        with pytest.raises(ConfigError, match=r"^WANDB_APP_URL must be an address"):
            app_url("https://api.wandb.ai", {"WANDB_APP_URL": wrong})


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("https://wandb.ai/team/p/runs/r1", "team/p/r1"),
        ("https://wandb.ai/team/p/runs/r1/overview?nw=x#y", "team/p/r1"),
        ("https://forge.coreweave.com/wandb/team/p/runs/r1/", "team/p/r1"),
        ("https://forge.coreweave.com/wandb/team/p/workspace", "team/p"),
        ("https://wandb.ai/wandb/p/workspace", "wandb/p"),
        ("http://localhost:8080/team/p/runs/r1", "team/p/r1"),
        ("https://example.com/wandb/team/p/runs/r1", "team/p/r1"),
        ("https://wandb.ai/runs/runs/runs/runs", "runs/runs/runs"),
        ("https://wandb.ai/team/my%20project%5B1%5D/runs/r1", "team/my project[1]/r1"),
        ("https://wandb.ai/team/p/sweeps/s1", "team/p/s1"),
        ("https://wandb.ai/team/p/workspace?nw=x", "team/p"),
        ("https://wandb.ai/team/p", "team/p"),
        ("team/p/runs/r1", "team/p/runs/r1"),
        ("r1", "r1"),
        ("http://[::1]:8080/team/p/runs/r1", "team/p/r1"),
        ("https://wandb.ai/team/exp[1]/runs/r1", "team/exp[1]/r1"),
        ("https://[x/team/p", "https://[x/team/p"),
    ],
)
def test_the_path_of_an_address(address: str, path: str) -> None:
    """Whichever host it is on."""
    assert path_of(address) == path
