"""What the tests of local files share."""

from __future__ import annotations

import duckdb
import pytest


@pytest.fixture
def sql(home):
    """Reads the published file."""

    def run(query, *params):
        with duckdb.connect(str(home.published), read_only=True) as connection:
            return connection.execute(query, params).fetchall()

    return run
