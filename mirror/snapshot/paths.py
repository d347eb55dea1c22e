"""Finds mirrored projects and runs by the paths, globs and ids that users write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mirror.addresses import path_of
from mirror.errors import QueryError, Unknown
from mirror.patterns import fitting, nearest_project

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_LISTED = 8


class Ambiguous(QueryError):
    """The text matches several projects or runs."""


class NotARun(QueryError):
    """The text names a project where a run is wanted."""


class UnknownProject(Unknown):
    """No mirrored project has this name. The message names the nearest one of the mirror and of the config."""

    def __init__(self, text: str, mirrored: Sequence[str], configured: Sequence[str] = ()) -> None:
        """Find the nearest one. `waits` is the project of this name that the config has, and no pass has reached."""
        self.text = text
        self.mirrored = list(mirrored)
        name = text.strip("/")
        self.waits = next((path for path in configured if name in (path, path.rpartition("/")[2])), None)
        self.near = nearest_project(name, [*mirrored, *configured])
        super().__init__(self._message())

    def with_configured(self, configured: Sequence[str]) -> UnknownProject:
        """Return the same error, which also knows the projects of the config."""
        return UnknownProject(self.text, self.mirrored, configured)

    def _message(self) -> str:
        if self.waits:
            return f"{self.waits} is in the config, but nothing of it is mirrored yet: run `mirror sync`"
        if not self.mirrored and not self.near:
            return f"no project {self.text} in the mirror, which holds no project yet: run `mirror sync`"
        near = f"; did you mean {self.near}?" if self.near else ""
        listed = f"{'' if near else ';'} mirrored: {_listed(self.mirrored)}" if self.mirrored else ""
        return f"no project {self.text} in the mirror{near}{listed}"


class UnknownRun(Unknown):
    """No mirrored run has this id or name; `hint` names the nearest ones, if any are like it."""

    def __init__(self, text: str, hint: str) -> None:
        """Store the hint, which ends the message."""
        self.hint = hint
        super().__init__(f"no run {text} in the mirror{hint}")


class Project(NamedTuple):
    """A project's address."""

    entity: str
    project: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}"


def projects(connection: DuckDBPyConnection) -> list[Project]:
    """Every mirrored project."""
    # Not the relation `projects`, which counts every run.
    rows = connection.execute("SELECT entity, project FROM store.project_records ORDER BY ALL").fetchall()
    return [Project(*row) for row in rows]


def find_projects(
    connection: DuckDBPyConnection | None,
    patterns: Sequence[str],
    entity: str | None = None,
    known: Sequence[Project] | None = None,
) -> list[Project]:
    """The mirrored projects that match "entity/project", a glob such as "entity/*", or a project's name alone.

    A project with exactly that name wins over the glob. A name alone means the project of `entity`, or of the only
    entity that has it. `known` is the result of `projects`, if the caller already has it; then no connection is
    needed. Raises QueryError for a pattern that matches nothing, naming the nearest projects.
    """
    if known is None:
        assert connection is not None
        known = projects(connection)
    matching: dict[Project, None] = {}
    for pattern in patterns:
        text = pattern.strip("/")
        if "/" in text:
            names = set(fitting(text, map(str, known)))
            chosen = [key for key in known if str(key) in names]
        else:
            candidates = [key for key in known if entity in (None, "", key.entity)]
            names = set(fitting(text, (key.project for key in candidates)))
            chosen = [key for key in candidates if key.project in names]
            if len({key.entity for key in chosen}) > 1:
                raise Ambiguous(f"{pattern} is in more than one entity: {_listed(map(str, chosen))}")
        if not chosen:
            if text.count("/") == 2 and any(str(key) == text.rpartition("/")[0] for key in known):
                raise QueryError(f"{pattern} names a run; give its project, {text.rpartition('/')[0]}")
            raise UnknownProject(pattern, [str(key) for key in known])
        matching.update(dict.fromkeys(chosen))
    return list(matching)


def find_run(connection: DuckDBPyConnection, text: str, entity: str | None = None) -> tuple[Project, str]:
    """The run of "entity/project/run_id", of its page's URL, or of a run id that only one project has.

    In place of the id stands the display name, too; an id wins over a name, and a run over a deleted one of the same
    name. Includes deleted runs. Raises QueryError for a run that is not mirrored, naming the nearest; NotARun for a
    project; and Ambiguous, which lists the runs, for an id in several projects and for a name of several runs.
    """
    parts = path_of(text).strip("/").split("/")
    if len(parts) == 4 and parts[2] == "runs":
        del parts[2]
    found = _by_id(connection, parts, entity) if len(parts) <= 3 and all(parts) else []
    if len(found) > 1:
        raise Ambiguous(f"{text} is in more than one project: {_listed('/'.join(row) for row in found)}")
    found = found or _by_name(connection, text.strip("/"), entity)
    if len(found) == 1:
        return Project(found[0][0], found[0][1]), found[0][2]
    _refuse_project(connection, text.strip("/"), entity)
    if len(parts) > 3 or not all(parts):
        raise QueryError(f"{text} is not a run path; use entity/project/run_id, or the run's id or name alone")
    if len(parts) == 3:
        find_projects(connection, ["/".join(parts[:2])])
    hint = _nearest_run(connection, parts[-1])
    if not hint and len(parts) == 1 and (near := nearest_project(text, map(str, projects(connection)))):
        hint = f"; did you mean the project {near}?"
    raise UnknownRun(text, hint)


def _by_id(connection: DuckDBPyConnection, parts: Sequence[str], entity: str | None) -> list[tuple[str, str, str]]:
    """Entity, project and id of the runs with this id, or with this path."""
    found = connection.execute(
        "SELECT entity, project, run_id FROM runs WHERE run_id = ? ORDER BY ALL", [parts[-1]]
    ).fetchall()
    if len(parts) == 3:
        return [row for row in found if list(row) == list(parts)]
    if len(parts) == 2:
        return [row for row in found if row[1] == parts[0] and (entity is None or row[0] == entity)]
    return found


def _by_name(connection: DuckDBPyConnection, text: str, entity: str | None) -> list[tuple[str, str, str]]:
    """Entity, project and id of the run with this display name, which may stand after its project and contain slashes.

    Empty if there is none. Raises Ambiguous if several runs have the name.
    """
    first, _, rest = text.partition("/")
    second, _, last = rest.partition("/")
    readings = [(first, second, last), (entity, first, rest), (None, None, text)]
    for owner, project, name in readings:
        if not name:
            continue
        rows = connection.execute(
            "SELECT entity, project, run_id, created_at, state, deleted_at IS NOT NULL FROM runs "
            "WHERE name = $name AND entity = coalesce($entity, entity) AND project = coalesce($project, project) "
            "ORDER BY created_at DESC, entity, project, run_id",
            {"name": name, "entity": owner, "project": project},
        ).fetchall()
        there = [row for row in rows if not row[5]] or rows
        if len(there) > 1:
            each = (
                f"{e}/{p}/{run_id} ({created:%Y-%m-%d %H:%M}, {state})" for e, p, run_id, created, state, _ in there
            )
            raise Ambiguous(f"{len(there)} runs are called {name}: {_listed(each)}")
        if there:
            return [there[0][:3]]
    return []


def _refuse_project(connection: DuckDBPyConnection, text: str, entity: str | None) -> None:
    """Raise NotARun if the text names a mirrored project."""
    if text.count("/") > 1:
        return
    here = [
        key
        for key in projects(connection)
        if text == str(key) or (text == key.project and entity in (None, key.entity))
    ]
    if here:
        raise NotARun(f"{here[0]} is a project, not a run; `mirror runs {here[0]}` lists its runs")


def _nearest_run(connection: DuckDBPyConnection, word: str) -> str:
    """End of an error message: names the runs whose id or name is most like this."""
    near = connection.execute(
        "SELECT entity || '/' || project || '/' || run_id, name, jaro_winkler_similarity(run_id, $word) AS of_id, "
        "jaro_winkler_similarity(coalesce(name, ''), $word) AS of_name FROM runs "
        "WHERE greatest(of_id, of_name) > 0.75 ORDER BY greatest(of_id, of_name) DESC, 1 LIMIT 3",
        {"word": word},
    ).fetchall()
    shown = [f"{path} ({name})" if of_name > of_id else path for path, name, of_id, of_name in near]
    return f"; did you mean {' or '.join(shown)}?" if near else ""


def scope(keys: Sequence[Project], alias: str, runs: Sequence[tuple[Project, str]] = ()) -> tuple[str, list[str]]:
    """A condition for the rows of these runs, else of these projects, else for all rows; and its parameters."""
    if runs:
        each = f"({alias}.entity = ? AND {alias}.project = ? AND {alias}.run_id = ?)"
        return f"({' OR '.join([each] * len(runs))})", [part for key, run in runs for part in (*key, run)]
    if not keys:
        return "TRUE", []
    each = f"({alias}.entity = ? AND {alias}.project = ?)"
    return f"({' OR '.join([each] * len(keys))})", [part for key in keys for part in key]


def nearest_of(word: str, known: Sequence[str]) -> str:
    """End of an error message: names the known words most like this one, or lists some if none is like it."""
    import difflib

    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there {'is' if len(known) == 1 else 'are'} {_listed(known)}" if known else "there are none"


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_LISTED]) + (f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else "")
