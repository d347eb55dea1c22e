"""The paths of a mirror's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from mirror.errors import UsageError

_MISREAD = frozenset("?\\")
"""DuckDB reads the text after a `?` as options, and a backslash as a slash."""


class Home(Struct, frozen=True):
    """The folders and files of one mirror. Reading a path creates nothing.

    `scope` is the folder of a copy of the published file for readers of some projects, which is read instead of it.
    """

    data: Path
    config: Path
    scope: Path | None = None

    @classmethod
    def find(cls, environ: Mapping[str, str], config: Path | None = None) -> Home:
        """Find the home: `MIRROR_HOME`, otherwise the XDG folders. `config` overrides `MIRROR_CONFIG`.

        Raises UsageError for a folder whose path DuckDB would read as another one.
        """
        if root := environ.get("MIRROR_HOME"):
            data = Path(root).expanduser().absolute()
            default_config = data / "config.toml"
        else:
            from platformdirs import PlatformDirs

            dirs = PlatformDirs("wandb-mirror", appauthor=False)
            data = Path(dirs.user_data_dir)
            default_config = Path(dirs.user_config_dir) / "config.toml"
        if found := sorted(_MISREAD & set(str(data))):
            signs = " and ".join(f"`{sign}`" for sign in found)
            raise UsageError(f"the home {data} has {signs} in its path, which DuckDB cannot open; set MIRROR_HOME")
        named = config or (Path(environ["MIRROR_CONFIG"]) if environ.get("MIRROR_CONFIG") else None)
        return cls(data=data, config=named.expanduser().absolute() if named else default_config)

    @property
    def state(self) -> Path:
        """The writer's own database; no other process opens it."""
        return self.data / "state.duckdb"

    @property
    def published(self) -> Path:
        """The published file for readers, replaced atomically."""
        return (self.scope or self.data) / "mirror.duckdb"

    @property
    def history(self) -> Path:
        """The folder of Parquet segments."""
        return self.data / "history"

    @property
    def blobs(self) -> Path:
        """The folder of file content, each stored once by its digest."""
        return self.data / "blobs"

    @property
    def socket(self) -> Path:
        """The daemon's control socket."""
        return self.data / "mirror.sock"

    @property
    def log(self) -> Path:
        """The daemon's log file."""
        return self.data / "mirror.log"

    @property
    def web_token(self) -> Path:
        """The access token of the daemon's local HTTP port."""
        return self.data / "web.token"

    @property
    def tokens(self) -> Path:
        """The tokens of readers of that port, as hashes."""
        return self.data / "tokens.json"

    @property
    def scopes(self) -> Path:
        """The folder of temporary copies for readers that are limited to some projects."""
        return self.data / ".scopes"
