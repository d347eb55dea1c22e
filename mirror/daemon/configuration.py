"""What the daemon reads when it starts and on every reload: the settings and the key."""

from __future__ import annotations

from collections.abc import Mapping

from mirror.daemon import logs
from mirror.errors import AuthError, ConfigError
from mirror.settings import credentials
from mirror.settings.home import Home
from mirror.settings.settings import Settings
from mirror.settings.settings import load as load_settings


def load(home: Home, environ: Mapping[str, str]) -> Settings:
    """Return the settings. Raises ConfigError if they are not valid or there is nothing to mirror."""
    settings = load_settings(home, environ)
    if not settings.projects and not settings.local.dirs:
        raise ConfigError(f"{home.config} names no projects; add some under `projects`, or run `mirror init`")
    return settings


def find_key(settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the API key and hide it from the logs. A mirror of local runs only needs none and returns ""."""
    try:
        key = credentials.find(settings.server.base_url, environ).key
    except AuthError:
        if settings.projects:
            raise
        return ""
    logs.hide(key)
    return key
