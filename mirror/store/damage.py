"""What a check of the database found."""

from __future__ import annotations

from msgspec import Struct


class Damage(Struct, frozen=True):
    """Two places that should agree and do not. `run_id` is None if more than one run is concerned.

    `lost` names the runs whose values are gone.
    """

    run_id: str | None
    field: str
    found: str
    expected: str
    cause: str
    lost: tuple[str, ...] = ()
