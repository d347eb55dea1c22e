"""The Python API of the mirror, with the interface of the official client; see docs/python.md.

Its classes are public, and so are the modules that define them. Other rooms may also use `Session`, which asks the
server and pulls into the mirror, and the module `edits`. All other modules are inner ones, which a contract in
pyproject.toml guards.
"""

from __future__ import annotations

from mirror.api.api import Api
from mirror.api.files import File, Files
from mirror.api.people import User
from mirror.api.projects import Project, Projects
from mirror.api.run import Run
from mirror.api.runs import Runs
from mirror.api.session import Session
from mirror.api.summary import Summary
from mirror.api.sweeps import Sweep, Sweeps

__all__ = [
    "Api",
    "File",
    "Files",
    "Project",
    "Projects",
    "Run",
    "Runs",
    "Session",
    "Summary",
    "Sweep",
    "Sweeps",
    "User",
]
