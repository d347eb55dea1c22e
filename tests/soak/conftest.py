from tests.daemon.conftest import bench

__all__ = ["bench"]
