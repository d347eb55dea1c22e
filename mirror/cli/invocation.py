"""What every command gets: the home of the mirror and the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from mirror.settings.home import Home

if TYPE_CHECKING:
    import typer

    from mirror.settings.settings import Settings


class Invocation(Struct, frozen=True):
    """One run of the command. `environ` holds a config file given by --config as MIRROR_CONFIG."""

    home: Home
    environ: Mapping[str, str]

    @property
    def entity(self) -> str | None:
        """The default entity for projects that are given without one."""
        return self.environ.get("WANDB_ENTITY") or None

    def settings(self, projects: Sequence[str] = ()) -> Settings:
        """Read the config. Raises ConfigError."""
        from mirror.settings.settings import load

        return load(self.home, self.environ, projects)


def invocation(ctx: typer.Context) -> Invocation:
    """Return the Invocation that the global options of this command line define."""
    found = ctx.find_object(Invocation)
    assert found is not None
    return found
