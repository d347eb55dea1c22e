"""`mirror demo`: all of it against an embedded sample server."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave server and daemon up for exploring, until Ctrl-C.")
    ] = False,
) -> None:
    """Show everything against an embedded sample server; no account needed.

    Mirrors three projects, queries them, follows a run that is training, and ends by itself in about a minute. The
    mirrored file stays in a temporary folder for a look afterwards.
    """
    from mirror.demo import Demo

    Demo(typer.echo).run(keep=keep)
