"""What people paste from MongoDB that is no filter, and what says it here."""

from __future__ import annotations

_SQL = 'say it in SQL, as in `mirror query "SELECT ..."`'
_ORDER = '--order says how runs are sorted, as in --order "-created_at" (order= in Python)'
_SELECT = "--select says which columns are wanted, as in --select name,config.lr"
_FILTER = "what it holds is the filter itself: write that alone"

ELSEWHERE = {
    "$sort": _ORDER,
    "$orderby": _ORDER,
    "$limit": "--limit says how many runs are wanted (a slice such as runs[:10] in Python)",
    "$skip": "runs are left out by a slice in Python, as in runs[10:20], or by OFFSET in SQL",
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
"""Stages of an aggregation and options of a search, by name."""
