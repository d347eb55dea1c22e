"""Addresses of the pages that W&B shows to people, which may lie on another host than the API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

from mirror.errors import ConfigError

FORGE_HOSTS = {"forge.coreweave.com": "api.wandb.ai", "qa.forge.coreweave.com": "api.qa.wandb.ai"}
"""The official client's own table (wandb/sdk/lib/urls.py): the hosts of the app, and of the API behind each.

The API is also at the host with "api." before it, and the app at FORGE_APP_PATH.
"""

FORGE_APP_PATH = "/wandb"


def app_url(base_url: str, environ: Mapping[str, str]) -> str:
    """Where the pages of a server lie: WANDB_APP_URL, or else what follows from the API's address.

    Raises ConfigError for a variable that is no address.
    """
    given = environ.get("WANDB_APP_URL", "").strip().rstrip("/")
    if not given:
        return app_of(base_url)
    try:
        parts = urlsplit(given)
        valid = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"\s", given)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f'WANDB_APP_URL must be an address such as "https://wandb.ai", not "{given}"')
    return given


def app_of(base_url: str) -> str:
    """As the official client has it (wandb.util.api_to_app_url of 0.31)."""
    base_url = base_url.rstrip("/")
    host = urlsplit(base_url).hostname
    for forge, api in FORGE_HOSTS.items():
        if host in (forge, f"api.{forge}", api):
            return f"https://{forge}{FORGE_APP_PATH}"
    if "://api.wandb." in base_url and "://api.wandb.test" not in base_url:
        return base_url.replace("://api.", "://")
    return base_url.replace("://api.", "://app.")


@lru_cache
def project_page(app: str, entity: str, project: str) -> str:
    """The page of a project."""
    return "/".join([app, quote(entity), quote(project)])


def run_page(app: str, entity: str, project: str, run_id: str) -> str:
    """The page of a run."""
    return f"{project_page(app, entity, project)}/runs/{quote(run_id)}"


def path_of(text: str) -> str:
    """The path that an address of a page means, whichever host it is on: entity/project, with the id of run or sweep.

    What is no address is returned as it is.
    """
    if not re.match(r"https?://", text):
        return text
    try:
        address = urlsplit(text)
    except ValueError:
        return text
    on_forge = address.hostname in FORGE_HOSTS
    path = address.path.removeprefix(FORGE_APP_PATH) if on_forge else address.path
    parts = [unquote(part) for part in path.split("/") if part]
    for place in range(2, len(parts) - 1):
        if parts[place] in ("runs", "sweeps"):
            # What comes before the entity is where the app lies on its host; what follows the id is a tab of the page.
            return "/".join([*parts[place - 2 : place], parts[place + 1]])
    return "/".join(parts[:2])
