"""Names of files in an export: made from run ids, or given by the files of a run."""

from __future__ import annotations

import os
import re
from zlib import crc32

_FOREIGN = re.compile(r"[^A-Za-z0-9._=+-]")
_LONGEST = 120
"""The longest run id that is part of a file name unchanged; file systems allow 255 bytes with all that is added."""


def file_name(run_id: str) -> str:
    """Return a run id as a part of a file name. One that is too long or has other characters is marked by a checksum.

    `wandb sync` reads the id from the file itself.
    """
    plain = _FOREIGN.sub("_", run_id)[:_LONGEST]
    return plain if plain == run_id else f"{plain}-{crc32(run_id.encode('utf-8', 'replace')):08x}"


def refusal(name: str) -> str | None:
    """Return why a file of a run cannot keep its name below a folder, as the end of a sentence; None if it can."""
    if "\0" in name:
        return "has a name that no file can have"
    plain = os.path.normpath(name)
    if os.path.isabs(name) or plain in (os.curdir, os.pardir) or plain.startswith(os.pardir + os.sep):  # noqa: PTH117
        return "leads out of the folder of its run"
    return None
