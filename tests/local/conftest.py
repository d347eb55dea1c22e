"""What the tests of local files share."""

from __future__ import annotations

import pytest

from tests.reading import rows


@pytest.fixture
def sql(home):
    """Reads the published file."""

    def run(query, *params):
        return rows(home.published, query, *params)

    return run
