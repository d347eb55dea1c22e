"""Reads a lake with DuckDB's delta extension from a package, and prints the answers to SQL questions as JSON.

Usage: python duckdb_reads_lake.py LAKE < questions.json
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import duckdb

lake = Path(sys.argv[1])
package = importlib.util.find_spec("duckdb_extension_delta")
extension = Path(package.origin).with_name("extensions") / f"v{duckdb.__version__}" / "delta.duckdb_extension"
connection = duckdb.connect()
connection.execute(f"LOAD '{extension}'")
snapshot = json.loads((lake / "_snapshot.json").read_text(encoding="utf-8"))
for relation, reported in snapshot["tables"].items():
    table = f"delta_scan('{lake / relation}', version => {reported['version']})"
    connection.execute(f"CREATE VIEW {relation} AS FROM {table}")
questions = json.load(sys.stdin)
answers = {name: connection.execute(question).fetchall() for name, question in questions.items()}
print(json.dumps(answers, default=str))
