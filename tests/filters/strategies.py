"""Documents and filters for property tests, small enough in their alphabet that filters often match."""

from __future__ import annotations

from hypothesis import strategies as st

KEYS = st.sampled_from(["a", "b", "c"])
NUMBERS = st.sampled_from([2, 3, 2.5, 3.0, 7])
TEXTS = st.sampled_from(["", "x", "xy", "2", "Yx", "ß"])
SCALARS = st.one_of(NUMBERS, TEXTS, st.none(), st.booleans())
NO_NULLS = st.one_of(NUMBERS, TEXTS, st.booleans())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
CONFIGS = st.dictionaries(KEYS, VALUES, max_size=3)


def paths(heads=("config", "summary_metrics")):
    """Dotted paths, sometimes with a position in a list."""
    step = st.one_of(KEYS, KEYS, KEYS, st.sampled_from(["0", "1"]))
    return st.builds(
        lambda head, first, rest: ".".join([head, first, *rest]),
        st.sampled_from(heads),
        KEYS,
        st.lists(step, max_size=2),
    )


def fitting(strategy, fits, plain):
    """Values of the strategy where they fit, else plain ones: a filter that refuses often throws away whole examples."""
    return strategy.flatmap(lambda value: st.just(value) if fits(value) else plain)


REGEXES = st.sampled_from(["x", "^x", "y$", "^$", "[xy]{2}", "x|2"])
COMPARISONS = st.builds(lambda o, v: {o: v}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.one_of(NUMBERS, TEXTS))


def operators(*, equal=VALUES, beyond=True):
    """One object of operators; without `beyond`, only what mongomock knows as MongoDB does."""
    single = [
        st.builds(lambda o, v: {o: v}, st.sampled_from(["$eq", "$ne"]), equal),
        COMPARISONS,
        st.builds(lambda o, v: {o: v}, st.sampled_from(["$in", "$nin"]), st.lists(equal, max_size=3)),
        st.builds(lambda v: {"$exists": v}, st.booleans()),
        st.builds(lambda v: {"$regex": v}, REGEXES),
        st.builds(lambda v: {"$all": v}, st.lists(NO_NULLS, min_size=1, max_size=2)),
    ]
    if beyond:
        single += [
            st.builds(lambda v: {"$size": v}, st.integers(0, 3)),
            st.builds(lambda d, r: {"$mod": [d, r]}, st.integers(2, 3), st.integers(-1, 1)),
            st.builds(lambda v: {"$type": v}, st.sampled_from(["number", "string", "null", "array", "object", "bool"])),
            st.builds(lambda v: {"$contains": v}, TEXTS),
            st.just({"$all": []}),
        ]
    one = st.one_of(single)
    both = st.builds(lambda a, b: {**a, **b}, one, one)
    anything = st.one_of(one, one, both)
    denied = anything if beyond else fitting(anything, lambda v: "$regex" not in v, COMPARISONS)
    return st.one_of(
        anything,
        anything,
        st.builds(lambda v: {"$not": v}, denied),
        st.builds(lambda v: {"$elemMatch": v}, anything),
    )


def filters(condition=None, path=None):
    """Whole filters: fields joined by groups."""
    condition = st.one_of(VALUES, operators(), operators()) if condition is None else condition
    field = st.dictionaries(paths() if path is None else path, condition, min_size=1, max_size=2)
    return st.recursive(
        field,
        lambda inner: st.builds(
            lambda o, parts: {o: parts},
            st.sampled_from(["$and", "$or", "$nor"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        max_leaves=4,
    )
