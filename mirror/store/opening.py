"""What opening and publishing check of a mirror: whose the published file is, upgrades, views, leftovers."""

from __future__ import annotations

import logging
import shutil

import duckdb

from mirror.errors import StoreDamaged
from mirror.settings.home import Home
from mirror.store import (
    aside,
    backup,
    compact,
    identity,
    migrations,
    publish,
    recovery,
    segment_checks,
    segment_files,
    views,
)
from mirror.store.database import Database, spill_folder

logger = logging.getLogger(__name__)


def check_published(db: Database, home: Home) -> None:
    """Check that the store may replace the published file. A damaged one is copied to the folder `aside`."""
    published = home.published
    state_id = identity.of(db.run)
    assert state_id is not None
    try:
        published_id = identity.read(published)
    except FileNotFoundError:
        return
    except StoreDamaged as error:
        kept = aside.put(home.data, [published], keep=True)
        logger.warning("%s; it is published again, and the damaged one is kept in %s", error, kept)
        return
    identity.check_may_replace(home.state, state_id, published, published_id)


def compare_published(db: Database, home: Home) -> bool:
    """Raise StoreError if the published file belongs to another mirror, or is newer than the store.

    Returns False if it is damaged.
    """
    state_id = identity.of(db.run)
    assert state_id is not None
    try:
        published_id = identity.read(home.published)
    except StoreDamaged:
        return False
    identity.check_may_replace(home.state, state_id, home.published, published_id)
    return True


def migrate(db: Database, home: Home) -> list[str]:
    """Apply the pending migrations, and keep the published file of an existing mirror as it is before.

    Returns their names. Raises StoreError if a newer program wrote the file.
    """
    done = migrations.applied(db.run)
    pending = migrations.pending(db.path, done)
    if pending and done and home.published.exists():
        copy = backup.before_upgrade(home, pending)
        names = ", ".join(name.removesuffix(".sql") for name in pending)
        logger.warning("upgrading %s (%s); the mirror before the upgrade is kept as %s", home.data, names, copy)
    if pending:
        migrations.apply(db, pending)
    return pending


def recreate_views(db: Database, home: Home) -> bool:
    """Recreate the views if they changed. An unreadable segment does not keep the store from opening."""
    try:
        with db.transaction():
            return views.recreate(db, home.history)
    except duckdb.Error as error:
        if not segment_checks.unreadable(db, home.history):
            raise
        logger.warning(
            "the views of %s could not be created again (%s); run `mirror verify --repair`",
            home.state,
            str(error).splitlines()[0],
        )
        return False


def delete_leftovers(db: Database, home: Home) -> None:
    """Delete what a killed process left."""
    segment_files.delete_leftovers(db, home.history)
    publish.delete_leftovers(home.published)
    recovery.delete_leftovers(home)
    compact.delete_leftover(home.state)
    shutil.rmtree(spill_folder(home.state), ignore_errors=True)
