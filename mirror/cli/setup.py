"""`mirror init` and `mirror login`: what a new mirror needs."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say, warn
from mirror.errors import AuthError, ConfigError, MirrorError, StoreError, UsageError

if TYPE_CHECKING:
    from mirror.settings.settings import Settings


def init(
    ctx: typer.Context,
    projects: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROJECT]...", help="entity/project, or entity/* for all of an entity."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a config that is there.")] = False,
) -> None:
    """Write a commented config file; asks for projects when none is given."""
    from mirror.settings.settings import project_patterns, render

    given = invocation(ctx)
    path = given.home.config
    if path.exists() and not force:
        raise ConfigError(f"{path} exists: edit it, or replace it with `mirror init --force`")
    patterns = project_patterns(projects or _asked(), given.entity)
    _put(path, render(patterns, commented=True))
    say(f"wrote {path}: mirrors {', '.join(patterns)}")
    say("next: `mirror sync` pulls once, `mirror daemon` keeps it fresh" + _login_hint(given))


def _put(path: Path, text: str) -> None:
    """Write the config in one step, through links, with the mode that it had. Raises ConfigError."""
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
            # A file that is mounted by itself cannot be replaced, only written.
            target.write_text(text, encoding="utf-8")
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise ConfigError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


def login(
    ctx: typer.Context,
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", show_default=False, help="Asked for, or read from stdin, without.")
    ] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Ask the server whether it takes the key.")] = True,
) -> None:
    """Check an API key against the server and store it as `wandb login` does: in netrc, 0600."""
    from mirror.settings.credentials import store_key, valid_form

    given = invocation(ctx)
    settings = given.settings()
    base_url = settings.server.base_url
    key = (key or _asked_key(base_url)).strip()
    if not valid_form(key):
        raise AuthError("this cannot be an API key: it has 40 or more letters, digits and _; nothing was stored")
    who = _whose(settings, key) if check else ""
    path = store_key(base_url, key, given.environ)
    say(f"{who}the key for {base_url} is stored in {path}")
    if given.environ.get("WANDB_API_KEY", key) != key:
        warn("WANDB_API_KEY is set to another key, and wins over the stored one")


def _asked() -> list[str]:
    if not sys.stdin.isatty():
        raise UsageError("name at least one project: `mirror init my-team/vision`")
    answer = typer.prompt("Projects to mirror (entity/project, or entity/*; several with spaces)", err=True)
    return str(answer).replace(",", " ").split()


def _asked_key(base_url: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    return str(typer.prompt(f"API key for {base_url}", hide_input=True, err=True))


def _whose(settings: Settings, key: str) -> str:
    """Who the server says the key belongs to. Raises AuthError for a key that is nobody's."""
    import asyncio

    from mirror.remote.client import RetryPolicy, Server

    async def ask() -> str:
        retry = RetryPolicy(attempts=3, seconds=settings.server.timeout)
        async with Server(settings.server.base_url, key, timeout=settings.server.timeout, retry=retry) as server:
            viewer = await server.viewer()
        name, entity = viewer.get("username"), viewer.get("entity")
        return f"{name} ({entity}): " if entity and entity != name else f"{name}: "

    return asyncio.run(ask())


def _login_hint(given: Invocation) -> str:
    from mirror.settings.credentials import find

    try:
        find(given.settings().server.base_url, given.environ)
    except MirrorError:
        return "; before that, `mirror login` stores an API key"
    return ""
