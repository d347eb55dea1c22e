"""Run the server in the foreground: `python -m mirror.sandbox [--port P] [--sample small|full]`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from contextlib import ExitStack

from mirror.sandbox import Sandbox, instants, sample


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Prints the shell commands that point a client at the server."""
    parser = argparse.ArgumentParser(
        prog="python -m mirror.sandbox", description="A W&B-shaped server with sample data."
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--sample", choices=("small", "full"), default="small", help="the sample data (default: small)")
    parser.add_argument("--key", default=None, help="the API key (default: a random one)")
    chosen = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    world = sample.full(until=instants.now()) if chosen.sample == "full" else sample.small()
    try:
        server = Sandbox(world, key=chosen.key, port=chosen.port).start()
    except OSError as error:
        sys.stderr.write(f"port {chosen.port} of 127.0.0.1 cannot be used: {error.strerror}; choose another --port\n")
        return 2
    sys.stdout.write(f"export WANDB_BASE_URL={server.url}\nexport WANDB_API_KEY={server.key}\n")
    sys.stdout.flush()
    running = [run for home in world.projects.values() for run in home.runs.values() if run.state == "running"]
    with ExitStack() as stack:
        for run in running:
            stack.enter_context(sample.keep_logging(run, every=1.0))
        stop.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
