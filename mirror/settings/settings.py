"""Settings: the config file, the environment above it, the defaults below it. An error names file, line and key."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirror.errors import ConfigError
from mirror.settings import values
from mirror.settings.credentials import netrc_path
from mirror.settings.file import ConfigFile
from mirror.settings.home import Home
from mirror.settings.values import DEFAULT_BASE_URL, Impossible, base_url, quoted


def _about(read: Callable[[object], Any], shown: str, help_text: str) -> dict[str, Any]:
    """How a setting is read, its default as TOML, and one line of explanation."""
    return {"read": read, "shown": shown, "help": help_text}


def _setting(default: Any, read: Callable[[object], Any], shown: str, help_text: str) -> Any:
    """A field of the config with its default."""
    return field(default=default, metadata=_about(read, shown, help_text))


@dataclass(frozen=True)
class ServerSettings:
    """How to reach the W&B server."""

    base_url: str = _setting(
        DEFAULT_BASE_URL, values.base_url, '"https://api.wandb.ai"', "the W&B server; WANDB_BASE_URL wins over it"
    )
    timeout: float = _setting(30.0, values.interval, '"30s"', "the longest wait for one answer")
    max_concurrency: int = _setting(8, values.count, "8", "requests under way at the same time")


@dataclass(frozen=True)
class SyncSettings:
    """When to pull, and what. Times are seconds."""

    interval: float = _setting(300.0, values.interval, '"5m"', "between two looks at a project in which nothing runs")
    live_interval: float = _setting(15.0, values.interval, '"15s"', "the same for a project with a running run")
    reconcile_interval: float = _setting(
        21600.0, values.interval, '"6h"', "full listing: finds deletions and edits that move no timestamp"
    )
    filters: dict[str, Any] = field(
        default_factory=dict,
        metadata=_about(values.filters, "{}", 'mirror only the runs that match, e.g. {"config.team" = "vision"}'),
    )
    history: tuple[str, ...] = _setting(
        ("*",), values.globs, '["*"]', "history keys to mirror, as globs; [] mirrors none"
    )
    system_metrics: bool = _setting(False, values.switch, "false", "mirror CPU, GPU and memory metrics as well")
    metadata: bool = _setting(
        False, values.switch, "false", "each run's wandb-metadata.json as well: host, hardware; a file a run"
    )
    console: bool = _setting(False, values.switch, "false", "mirror the console output of runs as well")
    files: bool = _setting(
        False, values.switch, "false", "mirror the list of each run's files as well, without content"
    )


@dataclass(frozen=True)
class StoreSettings:
    """How the mirror keeps its data."""

    tail_values: int = _setting(
        10_000_000,
        values.count,
        '"10M"',
        "newest history values kept inside the DuckDB file; older ones move to Parquet",
    )


@dataclass(frozen=True)
class PublishSettings:
    """How readers get to see new data."""

    min_interval: float = _setting(5.0, values.seconds, '"5s"', "between two replacements of mirror.duckdb")
    storage_version: str = _setting(
        "v1.4.0",
        values.storage_version,
        '"v1.4.0"',
        'oldest DuckDB that opens mirror.duckdb; "v1.2.0" for older drivers',
    )


@dataclass(frozen=True)
class HttpSettings:
    """The daemon's own HTTP port."""

    listen: str = _setting(
        "127.0.0.1:8642",
        values.listen,
        '"127.0.0.1:8642"',
        'where the daemon serves its page, see `mirror open`; "" nowhere',
    )
    writes: str = _setting(
        "pass",
        values.writes,
        '"pass"',
        'what to do with changes that come there from the official client; or "refuse"',
    )


@dataclass(frozen=True)
class LocalSettings:
    """Runs that lie in files of the official client."""

    dirs: tuple[str, ...] = _setting(
        (), values.folders, "[]", 'folders of offline and live runs to mirror as well, e.g. ["~/train/wandb"]'
    )
    entity: str = _setting("", values.entity, '""', 'entity of those that name none; WANDB_ENTITY wins; "" is "local"')


@dataclass(frozen=True)
class Settings:
    """Everything a mirror can be told. `file` is where it was read, None when there was no file."""

    projects: tuple[str, ...] = ()
    entity: str | None = None
    server: ServerSettings = field(default_factory=ServerSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    file: Path | None = None


SECTIONS: dict[str, Any] = {
    "server": ServerSettings,
    "sync": SyncSettings,
    "store": StoreSettings,
    "publish": PublishSettings,
    "http": HttpSettings,
    "local": LocalSettings,
}


def load(home: Home, environ: Mapping[str, str], projects: Sequence[str] = ()) -> Settings:
    """Read the settings. `projects` (also paths of runs) replace those of the file; without a file the defaults hold.

    Raises ConfigError for a file that was named by MIRROR_CONFIG and is not there, and for the first thing in it
    that is unknown, of the wrong type or impossible.
    """
    entity = environ.get("WANDB_ENTITY") or None
    document = ConfigFile.read(home.config, SECTIONS, required=bool(environ.get("MIRROR_CONFIG")))
    document.refuse_unknown((), ["projects", *SECTIONS])
    sections = {name: document.section(name) for name in SECTIONS}
    if not document.has("server", "base_url") and (url := _official_base_url(environ)):
        sections["server"] = dataclasses.replace(sections["server"], base_url=url)
    # `mirror env` sends other programs to the mirror by this variable; the mirror itself asks the real server.
    if (url := environ.get("WANDB_BASE_URL")) and url.rstrip("/") != f"http://{sections['http'].listen}":
        url = _checked(base_url, url, "WANDB_BASE_URL")
        sections["server"] = dataclasses.replace(sections["server"], base_url=url)
    patterns = [_checked(values.path, given, "PATH", entity) for given in projects]
    return Settings(
        projects=tuple(dict.fromkeys(patterns or document.projects(entity))),
        entity=entity,
        file=home.config if document.exists else None,
        **sections,
    )


def project_patterns(given: Sequence[str], entity: str | None) -> tuple[str, ...]:
    """Patterns as they stand in a config, each once and with its entity. Raises ConfigError for anything else."""
    return tuple(dict.fromkeys(_checked(values.project_pattern, text, "a project", entity) for text in given))


def render(projects: Sequence[str], *, server: str = "", commented: bool = False) -> str:
    """The text of a config file with every setting and its explanation; `commented` leaves the defaults inactive."""
    lines = [
        "# Settings of wandb-mirror. WANDB_API_KEY, WANDB_BASE_URL and WANDB_ENTITY win over this file;",
        "# the API key never stands here: `mirror login` stores it where `wandb login` does.",
        "",
        '# What to mirror: "entity/project", or "entity/*" for all projects of an entity.',
        f"projects = [{', '.join(quoted(project) for project in projects)}]",
    ]
    for name, kind in SECTIONS.items():
        lines += ["", f"[{name}]"]
        for item in dataclasses.fields(kind):
            own = quoted(server) if server and (name, item.name) == ("server", "base_url") else ""
            line = f"{item.name} = {own or item.metadata['shown']}"
            if commented and not own:
                line = f"# {line}"
            lines.append(f"{line:<44} # {item.metadata['help']}")
    return "\n".join(lines) + "\n"


def sources(home: Home, environ: Mapping[str, str]) -> list[Path]:
    """The files that settings and key are read from, whether they are there or not."""
    return [home.config, _official_settings(environ), netrc_path(environ).absolute()]


def _official_settings(environ: Mapping[str, str]) -> Path:
    folder = environ.get("WANDB_CONFIG_DIR")
    return ((Path(folder) if folder else Path("~/.config/wandb")).expanduser() / "settings").absolute()


def _official_base_url(environ: Mapping[str, str]) -> str | None:
    """The server that `wandb login --host` saved in the official client's own settings file; None when unreadable."""
    path = _official_settings(environ)
    if not path.is_file():
        return None
    import configparser

    parser = configparser.ConfigParser()
    try:
        parser.read(path, encoding="utf-8")
        return base_url(parser["default"]["base_url"])
    except (configparser.Error, KeyError, OSError, ValueError):
        return None


def _checked(read: Callable[..., str], value: str, name: str, *more: Any) -> str:
    try:
        return read(value, *more)
    except Impossible as error:
        raise ConfigError(f"{name} {error}") from None
