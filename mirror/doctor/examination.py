"""All checks, in the order in which a person would mend things."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mirror.doctor import daemon, files, server
from mirror.doctor.findings import Finding, fail, ok, warn
from mirror.errors import ConfigError
from mirror.settings import settings as config
from mirror.settings.home import Home
from mirror.version import VERSION


def examine(home: Home, environ: Mapping[str, str]) -> Iterator[Finding]:
    """One finding after the other. Asks the server who the key belongs to, and some questions about its projects."""
    yield _versions()
    try:
        settings = config.load(home, environ)
    except ConfigError as error:
        yield fail("config", str(error), "mend the file; what can be is checked with the defaults")
        yield from files.check(home, config.Settings())
        # A key is shown to no other server than its own, and the config is where that stands.
        yield warn("server", "not asked anything, since the config may name another", "mend the config first")
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
        return warn("config", f"{home.config} does not exist", "`mirror init` writes it; the defaults hold until then")
    if not settings.projects:
        return warn("config", f"{home.config} names no projects", "add some under `projects`, or name them to commands")
    count = len(settings.projects)
    return ok("config", f"{home.config} is valid and names {count} {'project' if count == 1 else 'projects'}")
