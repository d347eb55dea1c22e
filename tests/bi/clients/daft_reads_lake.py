"""Reads a lake with Daft, and prints the answers to SQL questions as JSON.

Usage: python daft_reads_lake.py LAKE < questions.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import daft

lake = Path(sys.argv[1])
snapshot = json.loads((lake / "_snapshot.json").read_text(encoding="utf-8"))
tables = {
    relation: daft.read_deltalake(str(lake / relation), version=reported["version"])
    for relation, reported in snapshot["tables"].items()
}
answers = {
    name: [list(row.values()) for row in daft.sql(question, **tables).to_pylist()]
    for name, question in json.load(sys.stdin).items()
}
print(json.dumps(answers, default=str))
