"""An in-memory server that speaks the part of the W&B API that mirroring needs: for tests, benchmarks and demos."""

from __future__ import annotations

from mirror.sandbox import sample
from mirror.sandbox.artifacts import Artifact
from mirror.sandbox.run import Project, Run
from mirror.sandbox.server import Sandbox
from mirror.sandbox.world import World

__all__ = ["Artifact", "Project", "Run", "Sandbox", "World", "sample"]
