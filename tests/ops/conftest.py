from __future__ import annotations

from tests.daemon.conftest import bench

__all__ = ["bench"]
