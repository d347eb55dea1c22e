"""One way of asking: the official client or `mirror.Api`, in a process of its own that answers with JSON."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

Ask = Callable[["Way"], Any]


class Way:
    """How a script reaches W&B here: "server" and "endpoint" by `wandb.Api`, "mirror" by `mirror.Api`."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "mirror":
            import mirror as module
            from mirror import CommError
        else:
            import wandb as module
            from wandb.errors import CommError
        self.module: Any = module
        self._comm_error = CommError
        self.default = self.api()

    def api(self, **settings: Any) -> Any:
        """A fresh `Api`; settings such as `entity` are its overrides."""
        return self.module.Api(settings)

    def old(self) -> Any:
        """An `Api` for the server of an older version, the endpoint over its mirror, or that mirror."""
        if self.name == "endpoint":
            return self.api(base_url=os.environ["FACTS_OLD_ENDPOINT"])
        server = {"base_url": os.environ["FACTS_OLD_SERVER"]}
        return (
            self.module.Api(server, home=os.environ["FACTS_OLD_HOME"])
            if self.name == "mirror"
            else self.module.Api(server)
        )

    def run(self, run_id: str, **settings: Any) -> Any:
        """A run of this way's own project, opened afresh."""
        return self.api(**settings).run(f"{self.project}/{run_id}")

    @property
    def project(self) -> str:
        """Each way changes runs of a project of its own, which are the same at first."""
        return f"team/by-{self.name}"

    def deleting(self) -> Any:
        """An `Api` that may delete runs."""
        return self.module.Api(allow_delete=True) if self.name == "mirror" else self.module.Api()

    def caught(self, work: Callable[..., Any], *given: Any, kind: str = "CommError", **more: Any) -> str | None:
        """`kind` where `except kind` catches what this raises, else what it raises; None where it raises nothing."""
        try:
            work(*given, **more)
        except Exception as error:  # noqa: BLE001
            kinds = {one.__name__ for one in type(error).__mro__}
            if isinstance(error, self._comm_error):
                kinds.add("CommError")
            return kind if kind in kinds else type(error).__name__
        return None

    def said(self, work: Callable[[], Any]) -> str:
        """What the error that this raises says."""
        try:
            work()
        except Exception as error:  # noqa: BLE001
            return str(error)
        return ""


def until(wanted: Any, ask: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What is answered, once it is what is `wanted`, or when the time is over."""
    limit = time.monotonic() + seconds
    while (found := plain(ask())) != wanted and time.monotonic() < limit:
        time.sleep(0.3)
    return found


def plain(value: Any) -> Any:
    """The value as JSON can say it, the same for every way."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def main(asked: Iterable[Ask]) -> None:
    """Answer everything for the way that the command line names: one JSON object on the last line."""
    warnings.simplefilter("ignore")
    way = Way(sys.argv[1])
    answers: dict[str, Any] = {}
    began = time.monotonic()
    for ask in asked:
        try:
            answers[ask.__name__] = plain(ask(way))
        except Exception as error:  # noqa: BLE001
            answers[ask.__name__] = {"raised": type(error).__name__, "said": str(error)[:300]}
        if os.environ.get("FACTS_TIMES"):
            print(ask.__name__, round(time.process_time(), 2), round(time.monotonic() - began, 2), file=sys.stderr)
    print(json.dumps(answers))
