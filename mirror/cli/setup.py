"""`mirror init` and `mirror login`: write the config and store the API key."""

from __future__ import annotations

import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say, warn
from mirror.errors import AuthError, CommError, ConfigError, MirrorError, StoreError, UsageError

if TYPE_CHECKING:
    from mirror.settings.settings import Settings


def init(
    ctx: typer.Context,
    projects: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROJECT]...", help="entity/project, or entity/* for all projects of an entity."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing config.")] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Only list the projects on the server: of your entities, or of [PROJECT].")
    ] = False,
) -> None:
    """Write a commented config file; prompts for projects if none are given."""
    from mirror.settings.settings import project_patterns, render

    given = invocation(ctx)
    if list_:
        _list_projects(given, projects or [])
        return
    path = given.home.config
    if path.exists() and not force:
        raise ConfigError(f"{path} exists: edit it, or replace it with `mirror init --force`")
    patterns = project_patterns(projects or _prompt_projects(), given.entity)
    _write_config(path, render(patterns, commented=True))
    say(f"wrote {path}: mirrors {', '.join(patterns)}")
    say("next: `mirror sync` pulls once, `mirror daemon` keeps the mirror up to date" + _login_hint(given))


def _list_projects(given: Invocation, patterns: Sequence[str]) -> None:
    """Print one project per line: those that match, or all that the key may see."""
    from mirror.cli import ending
    from mirror.cli.output import write_text
    from mirror.remote.entities import entities
    from mirror.sync import targets
    from mirror.sync.session import connect

    async def ask() -> list[str]:
        async with connect(given.settings(), given.environ) as server:
            names = patterns or await entities(server)
            wanted = [targets.parse(name if "/" in name else f"{name}/*") for name in names]
            failed: dict[str, CommError] = {}
            found = [str(target.project) for target in await targets.expand(server, wanted, failed)]
        for error in failed.values():
            warn(str(error))
        return found

    found = ending.run(ask())
    write_text("".join(f"{name}\n" for name in found))
    if not found:
        say("the server lists no project")


def _write_config(path: Path, text: str) -> None:
    """Replace the config in one step; follows links and keeps the mode. Raises ConfigError."""
    from mirror.cli.output import replaced

    try:
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replaced(target) as scratch:
                scratch.write_text(text, encoding="utf-8")
                if target.exists():
                    scratch.chmod(stat.S_IMODE(target.stat().st_mode))
        except StoreError:
            # A file that is a mount point cannot be replaced, only written.
            target.write_text(text, encoding="utf-8")
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise ConfigError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


def login(
    ctx: typer.Context,
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", show_default=False, help="Omitted: prompts, or reads stdin when piped."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Ask the server whether it accepts the key.")
    ] = True,
) -> None:
    """Check an API key with the server and store it as `wandb login` does: in netrc, mode 0600."""
    from mirror.settings.credentials import store_key, valid_form

    given = invocation(ctx)
    settings = given.settings()
    base_url = settings.server.base_url
    key = (key or _prompt_key(base_url)).strip()
    if not valid_form(key):
        raise AuthError("this is not an API key, which has 40 or more letters, digits and _; nothing was stored")
    owner = _owner(settings, key) if check else ""
    path = store_key(base_url, key, given.environ)
    say(f"{owner}the key for {base_url} is stored in {path}")
    if given.environ.get("WANDB_API_KEY", key) != key:
        warn("WANDB_API_KEY is set to another key, which overrides the stored one")


def _prompt_projects() -> list[str]:
    if not sys.stdin.isatty():
        raise UsageError("name at least one project: `mirror init my-team/vision`")
    answer = typer.prompt("Projects to mirror (entity/project, or entity/*; separate several with spaces)", err=True)
    return str(answer).replace(",", " ").split()


def _prompt_key(base_url: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    return str(typer.prompt(f"API key for {base_url}", hide_input=True, err=True))


def _owner(settings: Settings, key: str) -> str:
    """Return the user the key belongs to, as a prefix for a message. Raises AuthError if the server refuses the key."""
    from mirror.cli import ending
    from mirror.remote.client import RetryPolicy, Server

    async def ask() -> str:
        retry = RetryPolicy(attempts=3, seconds=settings.server.timeout)
        async with Server(settings.server.base_url, key, timeout=settings.server.timeout, retry=retry) as server:
            viewer = await server.viewer()
        name, entity = viewer.get("username"), viewer.get("entity")
        return f"{name} ({entity}): " if entity and entity != name else f"{name}: "

    return ending.run(ask())


def _login_hint(given: Invocation) -> str:
    from mirror.settings.credentials import find

    try:
        find(given.settings().server.base_url, given.environ)
    except MirrorError:
        return "; before that, `mirror login` stores an API key"
    return ""
