"""Conditions over `store.run_records AS r`: the runs that have a value at a path that passes a test.

The leaf form reads `store.leaves`, and the JSON text of lists for what has no rows there: elements of long lists, and
what a path finds inside lists. The JSON form reads whole documents; it is the reference for the leaf form, and is also
used for objects that are compared as a whole. `mirror.filters.published` has the form for the published relations.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise

from mirror.filters.fields import Document, Tags
from mirror.filters.fragment import FALSE, TRUE, Fragment, among, bound, certain, fragment, joined
from mirror.filters.rows import Row, json_row, marked, walk, walk_objects

HoldsList = Callable[[str, str], bool]
"""Given doc and key, returns True if any run may have a list there."""

Passes = Callable[[Row, int], Fragment]
"""A test on one value. The number makes the lambda parameters of nested expressions distinct."""

ELEMENT_TEXT_LIMIT = 256
"""Lists with longer JSON text have no rows for their elements; the same value as in `mirror.store.leaves`."""

LEAF = Row("l.kind", "l.number", "l.text", "(l.element IS NOT NULL)")
"""A row of `store.leaves AS l`."""

TAG = Row("v.kind", "v.number", "v.text", "v.element")
"""A row of `tag_values`, aliased v."""

_JOINABLE = 5
"""When the document itself is read, paths of at most this many steps are also tried with dots inside keys."""


def in_leaves(target: Document, passes: Passes, holds_list: HoldsList) -> Fragment:
    """A value of the path passes; read from `store.leaves`. Lists are searched only where runs have lists.

    DuckDB takes longer to plan that search than to read a thousand runs.
    """
    branches = [at_key(target, target.key, passes(LEAF, 0))]
    if holds_list(target.doc, target.key):
        branches.append(_in_long_list(target, passes))
    return some_of([*branches, *in_lists(target, passes, holds_list)])


def in_lists(target: Document, passes: Passes, holds_list: HoldsList) -> list[Fragment]:
    """Queries for the runs with such a value inside of a list on the way, for each place where runs have lists."""
    return [
        _in_list(target, position, passes)
        for position, key in enumerate(_prefixes(target), start=1)
        if holds_list(target.doc, key)
    ]


def some_of(branches: list[Fragment]) -> Fragment:
    """The condition that the run is in the result of one of these queries."""
    branches = [branch for branch in branches if branch != FALSE]
    return among(joined(" UNION ALL ", branches)) if branches else FALSE


def in_document(target: Document, passes: Passes) -> Fragment:
    """A value of the path passes; read from the JSON of the document."""
    values = marked(_in_json(target, Fragment(f"CAST(r.{target.doc} AS JSON)")))
    return certain(_some(values, passes))


def in_objects(target: Document, passes: Passes) -> Fragment:
    """Like `in_document`, for tests that only an object can pass: documents without objects there are not read."""
    holds_objects = Fragment("l.kind IN ('object', 'list')")
    maybe = [at_key(target, key, holds_objects) for key in (target.key, *_prefixes(target))]
    return certain(
        fragment("CASE WHEN {} THEN {} END", among(joined(" UNION ALL ", maybe)), in_document(target, passes))
    )


def is_present(target: Document) -> Fragment:
    """The path is not missing: there is a value, or a list on the way."""
    ways = [at_key(target, target.key, TRUE)]
    ways += [at_key(target, key, Fragment("l.kind = 'list'")) for key in _prefixes(target)]
    return among(joined(" UNION ALL ", ways))


def tag_values(tags: Tags, *, whole: bool) -> Fragment:
    """The tags of all runs, or those at one position, as rows of `TAG`. `whole` adds the whole list of each run."""
    columns = "'string' AS kind, CAST(NULL AS DOUBLE) AS number, t.tag AS text"
    if tags.index is not None:
        rows = f"SELECT t.rid, {columns}, FALSE AS element FROM store.tag_positions AS t WHERE t.position = {{}}"
        return fragment(rows, bound(tags.index))
    each = f"SELECT t.rid, {columns}, TRUE AS element FROM store.tag_positions AS t"
    if not whole:
        return Fragment(each)
    return Fragment(
        f"{each} UNION ALL SELECT t.rid, 'list', NULL, CAST(to_json(list(t.tag ORDER BY t.position)) AS VARCHAR), FALSE"
        " FROM store.tag_positions AS t GROUP BY t.rid"
        " UNION ALL SELECT o.rid, 'list', NULL, '[]', FALSE FROM store.run_records AS o"
        " WHERE o.rid NOT IN (SELECT t.rid FROM store.tag_positions AS t)"
    )


def at_key(target: Document, key: str, condition: Fragment) -> Fragment:
    """The runs with such a leaf at a key. One key per query: for a list of keys, DuckDB skips no row groups."""
    if condition == FALSE:
        return FALSE
    found = fragment(f"SELECT l.rid FROM store.leaves AS l WHERE l.doc = '{target.doc}' AND l.key = {{}}", bound(key))
    return found if condition == TRUE else fragment("{} AND {}", found, condition)


def _in_long_list(target: Document, passes: Passes) -> Fragment:
    """An element passes, in a list at the path that has no rows for its elements."""
    found = in_elements(passes)
    if found == FALSE:
        return FALSE
    return at_key(target, target.key, fragment(f"length(l.text) > {ELEMENT_TEXT_LIMIT} AND {{}}", found))


def in_elements(passes: Passes) -> Fragment:
    """The leaf `l` is a list with an element that passes."""
    test = passes(json_row("v"), 1)
    if test == FALSE:
        return FALSE
    return _of_list(fragment("len(list_filter(json_extract(l.text, '$[*]'), lambda v: {})) > 0", test))


def _in_list(target: Document, position: int, passes: Passes) -> Fragment:
    """A value inside a list passes: the first `position` steps lead to the list, the others into it."""
    found = _some(marked(walk(Fragment("CAST(l.text AS JSON)"), target.steps[position:], of_list=True)), passes)
    return FALSE if found == FALSE else at_key(target, ".".join(target.steps[:position]), _of_list(found))


def _of_list(found: Fragment) -> Fragment:
    # A CASE, because DuckDB may evaluate a conjunction in any order, and only the text of lists is surely JSON.
    return fragment("l.kind = 'list' AND l.element IS NULL AND CASE WHEN l.kind = 'list' THEN {} END", found)


def _some(values: Fragment, passes: Passes) -> Fragment:
    """SQL: one of the values, in the form that `marked` returns, passes; null if there is no list at all."""
    test = passes(json_row("v.y", element="v.element"), 1)
    return FALSE if test == FALSE else fragment("len(list_filter({}, lambda v: {})) > 0", values, test)


def _in_json(target: Document, document: Fragment) -> Fragment:
    """The values of a path from a document, in the form that `walk` returns, including keys that contain dots."""
    plain = walk(document, target.steps)
    literal = [
        fragment("list_filter({}, lambda o: o IS NOT NULL)", walk(walk_objects(document, keys), steps))
        for keys, steps in _joinings(target.steps)
    ]
    if not literal:
        return plain
    found = fragment("flatten([{}])", joined(", ", literal))
    return fragment(
        "CASE WHEN len({}) > 0 THEN list_concat(list_filter({}, lambda o: o IS NOT NULL), {}) ELSE {} END",
        found,
        plain,
        found,
        plain,
    )


def _joinings(steps: tuple[str, ...]) -> list[tuple[list[str], tuple[str, ...]]]:
    """Each way to read a path with dots inside keys: the keys up to the last one with a dot, and the other steps."""
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
