"""Engines read a lake without knowing the mirror. Those with environments of their own are in tests/bi."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tests.lake import worked
from tests.lake.reader import snapshot


def test_polars_answers_as_duckdb_does_on_the_mirror(tmp_path: Path) -> None:
    """Five example queries, in its own SQL, over the versions that belong together."""
    root = tmp_path / "lake"
    home = worked.exported(tmp_path / "mirror", str(root))
    tables = {
        relation: pl.scan_delta(str(root / relation), version=reported["version"])
        for relation, reported in snapshot(root)["tables"].items()
    }
    expected = worked.answers(home)
    with pl.SQLContext(tables) as context:
        for name, question in worked.questions().items():
            found = context.execute(worked.portable(question, "{} // {}"), eager=True)
            assert worked.approximate(found.rows()) == expected[name], name
