from __future__ import annotations

import pytest

from tests.sync.rig import rig as make_rig


@pytest.fixture
def rig(tmp_path):
    with make_rig(tmp_path / "home") as made:
        yield made
