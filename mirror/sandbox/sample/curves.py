"""Plausible curves: losses that fall, accuracies that rise, noise that shrinks, and runs that go wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any


def loss(draw: Random, step: int, steps: int, rate: float) -> float:
    """Return a loss that falls faster the closer `rate` is to 3e-4, and is noisy at first."""
    fit = math.exp(-(math.log10(rate / 3e-4) ** 2))
    done = step / max(steps, 1)
    return round(0.2 + 2.3 * math.exp(-4 * fit * done) + draw.gauss(0, 0.08) * math.exp(-2 * done), 6)


def accuracy(value: float) -> float:
    """Return an accuracy that matches a loss."""
    return round(max(0.01, min(0.995, math.exp(-value * 0.6))), 6)


def histogram(draw: Random, width: float) -> dict[str, Any]:
    """Return weights as `wandb.Histogram` logs them."""
    bins = [round(-3 * width + 6 * width * edge / 16, 6) for edge in range(17)]
    values = [int(400 * math.exp(-(((edge - 7.5) / 4) ** 2)) + draw.randrange(20)) for edge in range(16)]
    return {
        "_type": "histogram",
        "packedBins": {"min": bins[0], "size": bins[1] - bins[0], "count": 16},
        "values": values,
    }


def image(key: str, step: int, run_id: str) -> dict[str, Any]:
    """Return a reference to an image as `wandb.Image` logs it."""
    digest = f"{abs(hash_of(run_id, key, step)):040x}"
    return {
        "_type": "image-file",
        "path": f"media/images/{key}_{step}_{digest[:20]}.png",
        "sha256": digest + digest[:24],
        "size": 1024 + step,
        "width": 64,
        "height": 64,
        "format": "png",
    }


def table(key: str, step: int, run_id: str, rows: int = 16) -> dict[str, Any]:
    """Return a reference to a table as `wandb.Table` logs it."""
    digest = f"{abs(hash_of(run_id, key, step)):040x}"
    return {
        "_type": "table-file",
        "path": f"media/table/{key}_{step}_{digest[:20]}.table.json",
        "sha256": digest + digest[:24],
        "size": 2048,
        "ncols": 3,
        "nrows": rows,
    }


def hash_of(*parts: object) -> int:
    """Return a number that depends only on the parts, unlike the built-in hash of text."""
    return Random(":".join(map(str, parts))).getrandbits(150)


def timed(rows: Iterator[Mapping[str, Any]], start: float, seconds: float, draw: Random) -> Iterator[dict[str, Any]]:
    """Return rows with a `_timestamp` each, about `seconds` apart."""
    at = start
    for row in rows:
        at += seconds * draw.uniform(0.8, 1.2)
        yield {**row, "_timestamp": round(at, 3)}
