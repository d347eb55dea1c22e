"""Where the values of a path come from: relations of (rid, kind, number, text, element), one row a value.

The leaf form reads `store.leaves`. What its rows do not say is read from the JSON text of lists: their elements where
a list is too long to have rows for them, and whatever a path finds inside them. The JSON form reads whole documents; it
is the reference for the leaf form, and the way to objects that are compared as a whole.
"""

from __future__ import annotations

from itertools import combinations, pairwise

from mirror.filters.fields import Document, Tags
from mirror.filters.fragment import Fragment, any_of, bound, fragment, joined
from mirror.filters.rows import elements, json_columns, marked, walk, walk_objects

ELEMENT_TEXT_LIMIT = 256
"""Lists of a longer JSON text have no rows for their elements; `mirror.store.leaves` says the same."""

_JOINABLE = 5
"""Paths of at most so many steps are also tried with dots inside keys where the document itself is read."""


def leaf_values(target: Document) -> Fragment:
    """The values of a path, from `store.leaves`."""
    return fragment("{} UNION ALL {}", _direct(target), _in_lists(target))


def json_values(target: Document, among: Fragment | None = None) -> Fragment:
    """The values of a path, from the documents of all runs, or only of the runs `among` a relation of rids."""
    document = Fragment(f"CAST(r.{target.doc} AS JSON)")
    plain = walk(document, target.steps)
    literal = [
        fragment("list_filter({}, lambda o: o IS NOT NULL)", walk(walk_objects(document, keys), steps))
        for keys, steps in _joinings(target.steps)
    ]
    values = plain
    if literal:
        found = fragment("flatten([{}])", joined(", ", literal))
        values = fragment(
            "CASE WHEN len({}) > 0 THEN list_concat(list_filter({}, lambda o: o IS NOT NULL), {}) ELSE {} END",
            found,
            plain,
            found,
            plain,
        )
    scope = fragment(" WHERE r.rid IN ({})", among) if among is not None else Fragment("")
    return fragment(
        "SELECT u.rid, " + json_columns("u.s.y", "u.s.element") + " FROM ("
        "SELECT r.rid, unnest({}) AS s FROM store.runs AS r{}) AS u",
        marked(values),
        scope,
    )


def present(target: Document) -> Fragment:
    """The runs in which a path is not missing: something is at it, or a list stands on the way."""
    at_key = fragment("l.key = {}", bound(target.key))
    on_the_way = [fragment("(l.key = {} AND l.kind = 'list')", bound(key)) for key in _prefixes(target)]
    return fragment(_from(target, "l.rid") + " AND {}", any_of([at_key, *on_the_way]))


def holding_objects(target: Document) -> Fragment:
    """The runs that may have an object at a path: at it, in a list there, or inside a list on the way."""
    keys = joined(", ", [bound(key) for key in (target.key, *_prefixes(target))])
    return fragment(_from(target, "l.rid") + " AND l.key IN ({}) AND l.kind IN ('object', 'list')", keys)


def tag_values(tags: Tags, *, whole: bool) -> Fragment:
    """The tags of all runs, or those at one position; `whole` adds the list of each run as a value."""
    columns = "'string' AS kind, CAST(NULL AS DOUBLE) AS number, t.tag AS text"
    if tags.index is not None:
        rows = f"SELECT t.rid, {columns}, FALSE AS element FROM store.run_tags AS t WHERE t.position = {{}}"
        return fragment(rows, bound(tags.index))
    each = f"SELECT t.rid, {columns}, TRUE AS element FROM store.run_tags AS t"
    if not whole:
        return Fragment(each)
    return Fragment(
        f"{each} UNION ALL SELECT t.rid, 'list', NULL, CAST(to_json(list(t.tag ORDER BY t.position)) AS VARCHAR), FALSE"
        " FROM store.run_tags AS t GROUP BY t.rid"
        " UNION ALL SELECT o.rid, 'list', NULL, '[]', FALSE FROM store.runs AS o"
        " WHERE o.rid NOT IN (SELECT t.rid FROM store.run_tags AS t)"
    )


def _direct(target: Document) -> Fragment:
    columns = "l.rid, l.kind, l.number, l.text, l.element IS NOT NULL AS element"
    return fragment(_from(target, columns) + " AND l.key = {}", bound(target.key))


def _in_lists(target: Document) -> Fragment:
    text = Fragment("CAST(l.text AS JSON)")
    key = bound(target.key)
    found = elements(text)
    prefixes = _prefixes(target)
    if prefixes:
        ways = [
            fragment("WHEN {} THEN {}", bound(prefix), marked(walk(text, target.steps[position:])))
            for position, prefix in enumerate(prefixes, 1)
        ]
        found = fragment("CASE l.key {} ELSE {} END", joined(" ", ways), found)
    keys = joined(", ", [key, *(bound(prefix) for prefix in prefixes)])
    return fragment(
        "SELECT u.rid, " + json_columns("u.s.y", "u.s.element") + " FROM ("
        "SELECT l.rid, unnest(CASE WHEN l.kind = 'list' THEN {} END) AS s"
        f" FROM store.leaves AS l WHERE l.doc = '{target.doc}' AND l.key IN ({{}}) AND l.kind = 'list'"
        f" AND l.element IS NULL AND (l.key <> {{}} OR length(l.text) > {ELEMENT_TEXT_LIMIT})) AS u",
        found,
        keys,
        key,
    )


def _joinings(steps: tuple[str, ...]) -> list[tuple[list[str], tuple[str, ...]]]:
    """Each way to read a path with dots inside keys: keys up to the last that holds a dot, and the steps after it."""
    if not 1 < len(steps) <= _JOINABLE:
        return []
    found = []
    for count in range(len(steps) - 1):
        for cuts in combinations(range(1, len(steps)), count):
            ends = [0, *cuts, len(steps)]
            keys = [".".join(steps[a:b]) for a, b in pairwise(ends)]
            last = max(n for n, (a, b) in enumerate(pairwise(ends)) if b - a > 1)
            found.append((keys[: last + 1], tuple(keys[last + 1 :])))
    return found


def _prefixes(target: Document) -> list[str]:
    return [".".join(target.steps[:n]) for n in range(1, len(target.steps))]


def _from(target: Document, columns: str) -> str:
    return f"SELECT {columns} FROM store.leaves AS l WHERE l.doc = '{target.doc}'"
