from __future__ import annotations

import pytest

from tests.content.rig import content_rig


@pytest.fixture
def rig(tmp_path):
    with content_rig(tmp_path / "mirror") as made:
        yield made
