from __future__ import annotations

import pytest

from tests.store.kit import opened


@pytest.fixture
def store(tmp_path):
    """An open store in an empty folder."""
    with opened(tmp_path / "mirror") as store:
        yield store
