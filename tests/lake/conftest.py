"""The small mirror of the queries."""

from tests.query.conftest import mirror, published

__all__ = ["mirror", "published"]
