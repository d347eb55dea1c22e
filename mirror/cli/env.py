"""`mirror env`: shell commands that point the official client at the mirror."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from mirror.cli.invocation import invocation
from mirror.errors import MirrorError


def env(
    context: typer.Context,
    key: Annotated[bool, typer.Option("--key", help="Print only the API key. It is a secret.")] = False,
) -> None:
    """Print shell commands that make scripts for the official SDK read the mirror: eval "$(mirror env)".

    They set WANDB_BASE_URL to the running daemon's address, WANDB_API_KEY to the key that the mirror uses
    (the key itself is not printed), and WANDB_APP_URL to the address of the server's pages. The mirror's
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
        raise MirrorError(f"the daemon does not listen on any address: {reason}")
    home = f"MIRROR_HOME={shlex.quote(str(given.home.data))} " if given.environ.get("MIRROR_HOME") else ""
    named = given.environ.get("MIRROR_CONFIG")
    config = f" --config {shlex.quote(named)}" if named else ""
    # The key comes first: which key is used may depend on the address that the next line replaces.
    typer.echo(f'export WANDB_API_KEY="$({home}mirror{config} env --key)"')
    typer.echo(f"export WANDB_BASE_URL={shlex.quote(served['url'])}")
    # Otherwise the client derives page addresses from the daemon's address, where those pages do not exist.
    typer.echo(f"export WANDB_APP_URL={shlex.quote(app_url(settings.server.base_url, given.environ))}")
