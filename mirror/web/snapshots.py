"""What the HTTP port reads with: the newest snapshot in this process, and workers for statements of people."""

from __future__ import annotations

from mirror.settings.home import Home
from mirror.snapshot.pool import SnapshotPool
from mirror.web.statements import Statements


class Snapshots(SnapshotPool):
    """The pool of this process, and `statements`, which answers what people ask in processes of their own."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self.statements = Statements(home)

    def close(self) -> None:
        """End the workers, then close the snapshot."""
        self.statements.close()
        super().close()
