"""The files of the page: its own, and the chart library, which the installed plotly package contains."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from mirror.errors import MirrorError

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
CHARTS = "charts-library.js"


class Asset(Struct, frozen=True):
    """A file to send, plain and compressed. Compression helps when the page is used through an SSH tunnel."""

    plain: bytes
    compressed: bytes
    media_type: str
    etag: str


@cache
def load(name: str) -> Asset | None:
    """One file of the page, read and compressed once; None if there is no such file. Raises MirrorError."""
    path = chart_library() if name == CHARTS else _own().get(name)
    if path is None:
        return None
    plain = path.read_bytes()
    etag = f'"{hashlib.sha256(plain).hexdigest()[:16]}"'
    return Asset(plain, gzip.compress(plain, 6, mtime=0), _TYPES[path.suffix], etag)


def _own() -> dict[str, Path]:
    return {path.name: path for path in _FOLDER.iterdir() if path.suffix in _TYPES}


def chart_library() -> Path:
    """The path of the library in plotly's Python package, which is not imported."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise MirrorError("the package plotly, which has the chart library, is not installed: `pip install plotly`")
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    if not path.is_file():
        raise MirrorError(f"plotly {version('plotly')} has no {path}; install another version of it")
    return path
