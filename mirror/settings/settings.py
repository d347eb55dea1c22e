"""Settings: environment, then config file, then defaults. Errors name the file, line and key."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirror.errors import ConfigError
from mirror.patterns import WILD
from mirror.settings import values
from mirror.settings.credentials import netrc_path
from mirror.settings.file import ConfigFile
from mirror.settings.home import Home
from mirror.settings.values import DEFAULT_BASE_URL, ArtifactChoice, FileChoice, Impossible, base_url, quoted


def _about(read: Callable[[object], Any], shown: str, help_text: str) -> dict[str, Any]:
    """Return a setting's metadata: its reader, its default as TOML, and a one-line help text."""
    return {"read": read, "shown": shown, "help": help_text}


def _setting(default: Any, read: Callable[[object], Any], shown: str, help_text: str) -> Any:
    """Return a field of the config with its default."""
    return field(default=default, metadata=_about(read, shown, help_text))


@dataclass(frozen=True)
class ServerSettings:
    """How to reach the W&B server."""

    base_url: str = _setting(
        DEFAULT_BASE_URL, values.base_url, '"https://api.wandb.ai"', "the W&B server; WANDB_BASE_URL overrides it"
    )
    timeout: float = _setting(30.0, values.interval, '"30s"', "longest wait for one answer")
    max_concurrency: int = _setting(8, values.count, "8", "requests under way at the same time")


@dataclass(frozen=True)
class SyncSettings:
    """When to pull, and what. Times are seconds."""

    interval: float = _setting(
        300.0, values.interval, '"5m"', "time between passes over a project without running runs"
    )
    live_interval: float = _setting(
        15.0, values.interval, '"15s"', "time between passes over a project with running runs"
    )
    reconcile_interval: float = _setting(
        21600.0, values.interval, '"6h"', "time between full listings, which find deletions and silent edits"
    )
    filters: dict[str, Any] = field(
        default_factory=dict,
        metadata=_about(values.filters, "{}", 'mirror only the runs that match, e.g. {"config.team" = "vision"}'),
    )
    history: tuple[str, ...] = _setting(
        ("*",), values.globs, '["*"]', "history keys to mirror, as globs; [] mirrors none"
    )
    system_metrics: bool = _setting(False, values.switch, "false", "also mirror CPU, GPU and memory metrics")
    metadata: bool = _setting(
        False, values.switch, "false", "also pull each run's wandb-metadata.json: host, hardware; one file per run"
    )
    console: bool = _setting(False, values.switch, "false", "also mirror the console output of runs")
    reports: bool = _setting(False, values.switch, "false", "also mirror reports and saved views of projects")
    files: FileChoice = field(
        default_factory=FileChoice,
        metadata=_about(
            values.files,
            "false",
            'also mirror files of runs: "list", "content", or globs of names such as ["*.json", "media/**"]',
        ),
    )
    files_max: int = _setting(
        1_000_000_000, values.size, '"1GB"', 'most bytes of files to download per run; "" for no limit'
    )
    files_budget: int = _setting(
        100_000_000_000, values.size, '"100GB"', 'most bytes of file content in the mirror; "" for no limit'
    )
    artifacts: ArtifactChoice = field(
        default_factory=ArtifactChoice,
        metadata=_about(
            values.artifacts,
            "false",
            'also mirror artifacts: "list", "content", or patterns TYPE:ALIAS or TYPE/NAME:ALIAS such as ["model:*"]',
        ),
    )


@dataclass(frozen=True)
class StoreSettings:
    """How the mirror stores its data."""

    tail_values: int = _setting(
        10_000_000,
        values.count,
        '"10M"',
        "newest history values kept inside the DuckDB file; older ones move to Parquet",
    )


@dataclass(frozen=True)
class PublishSettings:
    """How new data is published to readers."""

    min_interval: float = _setting(
        5.0, values.seconds, '"5s"', "shortest time between two replacements of mirror.duckdb"
    )
    storage_version: str = _setting(
        "v1.4.0",
        values.storage_version,
        '"v1.4.0"',
        'oldest DuckDB that opens mirror.duckdb; "v1.2.0" for older drivers',
    )
    mode: int = _setting(
        0, values.mode, '""', 'who else may read mirror.duckdb and the segments: "0640" a group, "0644" everyone'
    )
    group: int | None = _setting(None, values.group, '""', "the group that these files get, if you are in it")


@dataclass(frozen=True)
class HttpSettings:
    """The daemon's own HTTP port."""

    listen: str = _setting(
        "127.0.0.1:8642",
        values.listen,
        '"127.0.0.1:8642"',
        'address of the daemon\'s page and query API, see docs/api.md; "" turns both off',
    )
    writes: str = _setting(
        "pass",
        values.writes,
        '"pass"',
        'forward writes by the official client to the server, or "refuse" them',
    )
    cert: str = _setting("", values.file, '""', "TLS certificate (PEM), for readers on other machines")
    key: str = _setting("", values.file, '""', "its private key, if that is in a file of its own")
    rate: int = _setting(1200, values.count, "1200", "how many queries a token may send in a minute")


@dataclass(frozen=True)
class LocalSettings:
    """Runs in local files of the official client."""

    dirs: tuple[str, ...] = _setting(
        (), values.folders, "[]", 'folders of offline and live runs to mirror too, e.g. ["~/train/wandb"]'
    )
    entity: str = _setting(
        "", values.entity, '""', 'entity of local runs without one; WANDB_ENTITY overrides it; "" is "local"'
    )


@dataclass(frozen=True)
class LakeSettings:
    """The Delta tables that the daemon keeps up to date. Times are seconds."""

    url: str = _setting(
        "",
        values.lake_url,
        '""',
        'folder, s3://, gs:// or az:// where the daemon keeps Delta tables up to date; "" for none',
    )
    interval: float = _setting(900.0, values.interval, '"15m"', "time between two exports to the lake")
    keep: float = _setting(604800.0, values.kept, '"7d"', "how long old versions of its tables stay readable")


@dataclass(frozen=True)
class Settings:
    """All settings of a mirror. `file` is the config file, None if there was none."""

    projects: tuple[str, ...] = ()
    entity: str | None = None
    server: ServerSettings = field(default_factory=ServerSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    lake: LakeSettings = field(default_factory=LakeSettings)
    file: Path | None = None


SECTIONS: dict[str, Any] = {
    "server": ServerSettings,
    "sync": SyncSettings,
    "store": StoreSettings,
    "publish": PublishSettings,
    "http": HttpSettings,
    "local": LocalSettings,
    "lake": LakeSettings,
}


def load(home: Home, environ: Mapping[str, str], projects: Sequence[str] = ()) -> Settings:
    """Read the settings. `projects` (also paths of runs) replace those of the file; without a file the defaults apply.

    Raises ConfigError if the file named by MIRROR_CONFIG does not exist, and for the first key or value that is not
    known, of the wrong type or not valid.
    """
    entity = environ.get("WANDB_ENTITY") or None
    document = ConfigFile.read(home.config, SECTIONS, required=bool(environ.get("MIRROR_CONFIG")))
    document.refuse_unknown((), ["projects", *SECTIONS])
    sections = {name: document.section(name) for name in SECTIONS}
    if not document.has("server", "base_url") and (url := _official_base_url(environ)):
        sections["server"] = dataclasses.replace(sections["server"], base_url=url)
    # `mirror env` points other programs to the mirror by this variable; the mirror itself uses the real server.
    if (url := environ.get("WANDB_BASE_URL")) and url.rstrip("/") not in _own_addresses(sections["http"].listen):
        url = _checked(base_url, url, "WANDB_BASE_URL")
        sections["server"] = dataclasses.replace(sections["server"], base_url=url)
    patterns = [_checked(values.path, given, "PATH", entity) for given in projects]
    return Settings(
        projects=tuple(dict.fromkeys(patterns or document.projects(entity))),
        entity=entity,
        file=home.config if document.exists else None,
        **sections,
    )


def _own_addresses(listen: str) -> set[str]:
    """The addresses of the daemon's port on this machine."""
    host, _, port = listen.rpartition(":")
    own = {f"http://{listen}"}
    if host in ("0.0.0.0", "[::]"):  # noqa: S104 - the page of such a port is at these
        own |= {f"http://127.0.0.1:{port}", f"http://[::1]:{port}"}
    return own


def configured_projects(home: Home, environ: Mapping[str, str]) -> list[str]:
    """Return the projects that the config names, without wildcards; none if the config is not valid."""
    try:
        named = load(home, environ).projects
    except ConfigError:
        return []
    return [path for path in named if not WILD & set(path) and path.count("/") == 1]


def project_patterns(given: Sequence[str], entity: str | None) -> tuple[str, ...]:
    """Return project patterns for a config, each once and with its entity. Raises ConfigError for anything else."""
    return tuple(dict.fromkeys(_checked(values.project_pattern, text, "a project", entity) for text in given))


def render(projects: Sequence[str], *, server: str = "", commented: bool = False) -> str:
    """Return the text of a config file with every setting and its help; `commented` comments out the defaults."""
    lines = [
        "# Settings of wandb-mirror. WANDB_API_KEY, WANDB_BASE_URL and WANDB_ENTITY override this file;",
        "# the API key is never stored here: `mirror login` stores it where `wandb login` does.",
        "",
        '# What to mirror: "entity/project", or "entity/*" for all projects of an entity.',
        f"projects = [{', '.join(quoted(project) for project in projects)}]",
    ]
    for name, kind in SECTIONS.items():
        lines += ["", f"[{name}]"]
        for item in dataclasses.fields(kind):
            given = quoted(server) if server and (name, item.name) == ("server", "base_url") else ""
            line = f"{item.name} = {given or item.metadata['shown']}"
            if commented and not given:
                line = f"# {line}"
            lines.append(f"{line:<44} # {item.metadata['help']}")
    return "\n".join(lines) + "\n"


def sources(home: Home, environ: Mapping[str, str]) -> list[Path]:
    """Return the files that settings and key are read from, whether they exist or not."""
    return [home.config, _official_settings(environ), netrc_path(environ).absolute()]


def _official_settings(environ: Mapping[str, str]) -> Path:
    folder = environ.get("WANDB_CONFIG_DIR")
    return ((Path(folder) if folder else Path("~/.config/wandb")).expanduser() / "settings").absolute()


def _official_base_url(environ: Mapping[str, str]) -> str | None:
    """Return the server that `wandb login --host` saved in the official client's settings file; None if unreadable."""
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
