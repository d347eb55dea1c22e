"""Addresses of W&B's web pages, which may be on another host than the API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

from mirror.errors import ConfigError

FORGE_HOSTS = {"forge.coreweave.com": "api.wandb.ai", "qa.forge.coreweave.com": "api.qa.wandb.ai"}
"""Hosts of the app, and the host of the API of each, as in the official client (wandb/sdk/lib/urls.py).

The API is also at "api." plus the app's host, and the app is at FORGE_APP_PATH.
"""

FORGE_APP_PATH = "/wandb"


def app_url(base_url: str, environ: Mapping[str, str]) -> str:
    """Return the address of a server's web pages: WANDB_APP_URL, otherwise derived from the API's address.

    Raises ConfigError if WANDB_APP_URL is not an address.
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
    """Derive the pages' address as the official client does (wandb.util.api_to_app_url of 0.31)."""
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
    """Return the address of a project's page."""
    return "/".join([app, quote(entity), quote(project)])


def sweep_page(app: str, entity: str, project: str, sweep_id: str) -> str:
    """Return the address of a sweep's page."""
    return f"{project_page(app, entity, project)}/sweeps/{quote(sweep_id)}"


def report_page(app: str, entity: str, project: str, report_id: str, title: str | None) -> str:
    """Return the address of a report's page: its title as words, then its id without padding."""
    words = re.sub(r"-+", "-", re.sub(r"\W", "-", title or "")).strip("-")
    return f"{project_page(app, entity, project)}/reports/{quote(words)}--{report_id.rstrip('=')}"


def run_page(app: str, entity: str, project: str, run_id: str) -> str:
    """Return the address of a run's page."""
    return f"{project_page(app, entity, project)}/runs/{quote(run_id)}"


def path_of(text: str) -> str:
    """Return the path in the address of a page on any host: entity/project, with the id of the run or sweep.

    A text that is not an address is returned unchanged.
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
    for index in range(2, len(parts) - 1):
        if parts[index] in ("runs", "sweeps"):
            # Parts before the entity are the app's path on its host; parts after the id are a tab of the page.
            return "/".join([*parts[index - 2 : index], parts[index + 1]])
    return "/".join(parts[:2])
