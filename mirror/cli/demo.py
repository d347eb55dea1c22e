"""`mirror demo`: the whole product against an embedded sample server."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep server and daemon running until Ctrl-C or until the terminal closes.")
    ] = False,
) -> None:
    """Show the product against an embedded sample server; no account needed.

    Mirrors three projects, queries them, follows a run that is training, and ends by itself in about a minute. The
    mirrored file stays in a temporary folder so that you can look at it afterwards.
    """
    from mirror.demo import Demo

    Demo(typer.echo).run(keep=keep)
