"""What people paste from MongoDB although it is not a filter, and what to use here instead."""

from __future__ import annotations

_SQL = 'use SQL, as in `mirror query "SELECT ..."`'
_ORDER = '--order sorts runs, as in --order "-created_at" (order= in Python)'
_SELECT = "--select chooses columns, as in --select name,config.lr"
_FILTER = "write only its content, which is the filter itself"

ELSEWHERE = {
    "$sort": _ORDER,
    "$orderby": _ORDER,
    "$limit": "--limit limits the number of runs (a slice such as runs[:10] in Python)",
    "$skip": "use a slice in Python, as in runs[10:20], or OFFSET in SQL",
    "$project": _SELECT,
    "$addFields": _SELECT,
    "$set": _SELECT,
    "$unset": _SELECT,
    "$match": _FILTER,
    "$query": _FILTER,
    "$count": "--count counts the runs (len(runs) in Python)",
    **dict.fromkeys(("$group", "$bucket", "$facet", "$sortByCount", "$unwind", "$lookup", "$sample"), _SQL),
    **dict.fromkeys(("$where", "$expr"), _SQL),
}
"""Stages of an aggregation and options of a search, by name, with what to use instead."""
