"""`mirror open`: opens the daemon's page in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from mirror.cli.invocation import invocation
from mirror.cli.messages import say
from mirror.errors import MirrorError


def open_page(
    context: typer.Context,
    print_: Annotated[
        bool, typer.Option("--print", help="Print a permanent link instead. It contains a secret.")
    ] = False,
) -> None:
    """Open the page of the running daemon in a browser: projects, runs, charts.

    The link that the browser gets works once, within two minutes; after that the browser has a cookie.
    From another machine: forward the port with SSH and open the printed link.
    """
    import webbrowser

    from mirror.control import Control
    from mirror.web import token

    given = invocation(context)
    control = Control.find(given.home.socket)
    if control is None:
        raise MirrorError("no daemon runs in this home; start `mirror daemon`, which serves the page")
    served = control.status().get("http") or {}
    if served.get("error"):
        raise MirrorError(f"the daemon serves no page: {served['error']}")
    if not served.get("url"):
        raise MirrorError(f"the page is turned off: set http.listen in {given.home.config}")
    secret = token.load(given.home.web_token)
    if print_:
        typer.echo(f"{served['url']}/?token={secret}")
        return
    if not webbrowser.open(f"{served['url']}/?ticket={token.ticket(secret)}"):
        raise MirrorError("found no browser to open; `mirror open --print` prints the link")
    say(f"opened {served['url']}")
