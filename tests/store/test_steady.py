"""A published file that is replaced while it is opened is opened again."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from mirror.errors import StoreError
from mirror.snapshot.connection import open_attached, open_plain, open_restricted
from mirror.store import integrity, steady
from mirror.store.reader import Reader
from tests.store.kit import home_at, opened, run, write

WAYS = {
    "plain": lambda home: open_plain(home.published),
    "attached": lambda home: open_attached(home.published, spill=""),
    "restricted": lambda home: open_restricted(home.published, home.history),
    "reader": lambda home: Reader(home)._connection,
}


def runs(way, home):
    """How many runs are there, opened in this way."""
    with WAYS[way](home) as connection:
        catalog = "mirror." if way == "attached" else ""
        return connection.execute(f"SELECT count(*) FROM {catalog}runs").fetchall()[0][0]


class Publisher:
    """Puts another version of the mirror in place after each of the next `times` openings of a file."""

    def __init__(self, root, monkeypatch):
        self.home = home_at(root)
        self.times = self.calls = 0
        self.error: duckdb.Error | None = None
        self._versions = []
        for number in (1, 2):
            with opened(root) as store:
                write(store, run(f"r{number}"))
                store.publish()
            self._versions.append(shutil.copy(self.home.published, root / f"{number}.duckdb"))
        self._connect = duckdb.connect
        monkeypatch.setattr(duckdb, "connect", self.connect)
        self.put(1)

    def put(self, number):
        shutil.copy(self._versions[number - 1], f"{self.home.published}.new")
        Path(f"{self.home.published}.new").replace(self.home.published)

    def connect(self, *place, **options):
        self.calls += 1
        connection = self._connect(*place, **options)
        if self.times:
            self.times -= 1
            self.put(2)
            if self.error is not None:
                connection.close()
                raise self.error
        return connection


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    return Publisher(tmp_path, monkeypatch)


@pytest.mark.parametrize("way", WAYS)
def test_it_is_opened_again_where_it_was_replaced_meanwhile(publisher, way):
    assert runs(way, publisher.home) == 1
    publisher.times = 2
    assert runs(way, publisher.home) == 2
    assert publisher.calls == 1 + 3


@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_two_files_in_one_is_not_reported(publisher, way):
    publisher.times, publisher.error = 1, duckdb.IOException("Could not read enough bytes from file")
    assert runs(way, publisher.home) == 2
    assert publisher.calls == 2


def test_another_error_is_reported_at_once(publisher):
    publisher.home.published.chmod(0o600)
    publisher.home.published.write_bytes(b"no database")
    with pytest.raises(StoreError, match=r"mirror.duckdb"):
        open_plain(publisher.home.published)
    assert publisher.calls == 1


def test_a_file_that_is_replaced_each_time_is_opened_in_the_end(publisher):
    publisher.times = 1000
    assert runs("plain", publisher.home) == 2
    assert publisher.calls == steady.TRIES


def test_checking_meets_no_damage_in_a_file_that_was_replaced(publisher, monkeypatch):
    check, calls = integrity._check, []

    def replaced(connection, path):
        calls.append(path)
        if len(calls) == 1:
            publisher.put(2)
            raise StoreError("damaged")
        return check(connection, path)

    monkeypatch.setattr(integrity, "_check", replaced)
    assert integrity.problems(publisher.home, state=False) == integrity.Problems()
    assert len(calls) == 2
