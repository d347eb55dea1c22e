"""All checks, in the order in which a person would fix things."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mirror.doctor import daemon, files, server
from mirror.doctor.findings import Finding, fail, ok, warn
from mirror.errors import ConfigError
from mirror.settings import settings as config
from mirror.settings.home import Home
from mirror.version import VERSION


def examine(home: Home, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the findings. Asks the server for the key's owner, and sends a few requests about its projects."""
    yield _versions()
    try:
        settings = config.load(home, environ)
    except ConfigError as error:
        yield fail("config", str(error), "fix the file; the other checks use the defaults where possible")
        yield from files.check(home, config.Settings())
        # A key must only be sent to its own server, which the unreadable config may name.
        yield warn("server", "not checked, since the config may name another one", "fix the config first")
        yield from daemon.check(home, config.Settings())
        return
    yield _config(home, settings)
    yield from files.check(home, settings)
    yield from server.check(settings, environ)
    yield from daemon.check(home, settings)


def _versions() -> Finding:
    import platform

    import duckdb

    return ok("versions", f"wandb-mirror {VERSION}, Python {platform.python_version()}, DuckDB {duckdb.__version__}")


def _config(home: Home, settings: config.Settings) -> Finding:
    if settings.file is None:
        return warn("config", f"{home.config} does not exist", "`mirror init` writes it; the defaults apply until then")
    if not settings.projects:
        return warn("config", f"{home.config} names no projects", "add some under `projects`, or name them to commands")
    count = len(settings.projects)
    return ok("config", f"{home.config} is valid and names {count} {'project' if count == 1 else 'projects'}")
