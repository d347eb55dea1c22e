"""The names of wide relations and of their columns: the plain name where it is free, else one with a number."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mirror.store import meta
from mirror.store import projects as known_projects
from mirror.store.database import Database
from mirror.store.names import folded, identifier, unique_names
from mirror.store.records import ProjectKey

Names = dict[ProjectKey, str]
"""The name of each project's relation."""


def view_name(db: Database, project: ProjectKey) -> str:
    """The name of the wide relation: the project's address.

    Of projects that differ only in case, the one that was mirrored first has the plain name, so that existing queries
    still read the same project; later ones get a number at the end.
    """
    return view_names(db)[project]


def view_names(db: Database) -> Names:
    """The name of every project's wide relation."""
    keys = [ProjectKey(*row) for row in db.run("SELECT entity, project FROM store.project_records ORDER BY number")]
    return dict(zip(keys, unique_names([str(key) for key in keys]), strict=True))


def renamed(db: Database, names: Names) -> list[tuple[ProjectKey, int]]:
    """Projects whose relation must get another name, because its current name is now another project's address."""
    numbered = [key for key, name in names.items() if name != str(key)]
    found = []
    for project in numbered:
        number = known_projects.find(db, project)
        if number is not None and noted_name(db, number) not in (None, names[project]):
            found.append((project, number))
    return found


def note_name(db: Database, project: ProjectKey, table: str, names: Names) -> None:
    """Record the name of the relation over a table, and drop the view with its former name unless another uses it."""
    key = f"name of {table}"
    former = meta.get(db, key)
    changed = meta.put(db, key, names[project])
    if changed and former is not None and folded(former) not in {folded(one) for one in names.values()}:
        db.run(f"DROP VIEW IF EXISTS main.{identifier(former)}")


def noted_name(db: Database, number: int) -> str | None:
    """The name of a project's relation when it was last built; None if it was not recorded."""
    return meta.get(db, f"name of store.wide_{number}")


def column_names(runs: Mapping[str, int], had: Collection[str]) -> dict[str, str]:
    """The column name of each key; `runs` is the number of runs that have the key.

    The column has the key's own name. Of keys that differ only in case, the one that most runs have gets the plain name
    (on a tie, the one in `had`, which had it before); the others get a number at the end.
    """
    preferred = sorted(runs, key=lambda key: (-runs[key], key not in had, key))
    return dict(zip(preferred, unique_names(preferred), strict=True))
