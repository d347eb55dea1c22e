"""`mirror env`: what a shell needs so that the official client reads the mirror."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from mirror.cli.invocation import invocation
from mirror.errors import MirrorError


def env(
    context: typer.Context,
    key: Annotated[bool, typer.Option("--key", help="Print the API key alone. It is a secret.")] = False,
) -> None:
    """Print shell commands after which scripts for the official SDK read the mirror: eval "$(mirror env)".

    They set WANDB_BASE_URL to the running daemon's address, and WANDB_API_KEY to the key that the mirror
    uses, which is not printed itself, and WANDB_APP_URL to where the server shows its pages. The mirror's
    own commands still talk to the real server.
    """
    from mirror.addresses import app_url
    from mirror.control import Control
    from mirror.settings import credentials

    given = invocation(context)
    settings = given.settings()
    if key:
        typer.echo(credentials.find(settings.server.base_url, given.environ).key)
        return
    control = Control.find(given.home.socket)
    if control is None:
        raise MirrorError("no daemon runs in this home; start `mirror daemon`, which serves the mirror to the SDK")
    served = control.status().get("http") or {}
    if not served.get("url"):
        reason = served.get("error") or f"set http.listen in {given.home.config}"
        raise MirrorError(f"the daemon listens nowhere: {reason}")
    home = f"MIRROR_HOME={shlex.quote(str(given.home.data))} " if given.environ.get("MIRROR_HOME") else ""
    named = given.environ.get("MIRROR_CONFIG")
    config = f" --config {shlex.quote(named)}" if named else ""
    # The key first: which one it is may hang on the address that is replaced then.
    typer.echo(f'export WANDB_API_KEY="$({home}mirror{config} env --key)"')
    typer.echo(f"export WANDB_BASE_URL={shlex.quote(served['url'])}")
    # From the daemon's address the client would make up addresses of pages that are not there.
    typer.echo(f"export WANDB_APP_URL={shlex.quote(app_url(settings.server.base_url, given.environ))}")
