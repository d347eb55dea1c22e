"""How the HTTP port reads the mirror: the newest snapshot in this process, and workers for users' statements."""

from __future__ import annotations

from mirror.settings.home import Home
from mirror.snapshot.pool import SnapshotPool
from mirror.web.statements import Statements


class Snapshots(SnapshotPool):
    """This process's pool of snapshots, and `statements`, which runs users' SQL and filters in separate processes."""

    def __init__(self, home: Home, *, nice: int = 0) -> None:
        """`nice` is how much the workers give way to other processes."""
        super().__init__(home)
        self.statements = Statements(home, nice=nice)

    def close(self) -> None:
        """End the workers, then close the snapshot."""
        self.statements.close()
        super().close()
