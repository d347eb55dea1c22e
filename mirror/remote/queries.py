"""The GraphQL documents that are sent. Each field also occurs in the official SDK's queries."""

from __future__ import annotations

VIEWER = "query Viewer { viewer { id username entity } }"

PROJECTS = """query MirrorProjects($entity: String, $after: String, $first: Int) {
  models(entityName: $entity, after: $after, first: $first) {
    edges { node { name } }
    pageInfo { endCursor hasNextPage }
  }
}"""

HEAD_FIELDS = "name state createdAt heartbeatAt updatedAt historyLineCount"
"""Enough of a run to see that it changed; a poll requests these."""

RUN_FIELDS = """id name displayName state createdAt heartbeatAt updatedAt group jobType sweepName notes
  description tags commit host config summaryMetrics historyLineCount historyKeys user { id name username }"""
"""Everything that is mirrored of a run except its history."""

DURATION_FIELD = "computeSeconds"
"""Seen in public clients, but in no query of the official SDK; requested with RUN_FIELDS if the server has it."""

FACT_FIELDS = ("projectId", "readOnly", "stopped", "exitcode", "systemMetrics")
"""Fields that are stored unchanged, for clients of the API."""

OPTIONAL_FIELDS = {
    "runInfo": "runInfo { program args os python gpu gpuCount cpuCount git { commit remote } }",
    **{name: name for name in ("eventsLineCount", "logLineCount", *FACT_FIELDS)},
}
"""More optional fields, by the name with which a server refuses them."""

KEPT_FIELDS = "name commit user { id name username } historyKeys"
"""Requested with OPTIONAL_FIELDS for runs that were mirrored before these were stored."""

KEYS_FIELDS = "name historyKeys"
"""The keys that each run ever logged."""

LINE_FIELDS = "number timestamp level label line"
PLAIN_LINE_FIELDS = "level line"
"""The fields of a console line on older servers."""

CONSOLE_PAGES = "useImprovedPagination"
"""Servers before 0.77 lack this argument; without it `first` is ignored and `after` counts from the end."""


def runs(fields: str, root: str = "", project: str = "") -> str:
    """Return the query for one page of runs that match `filters`, and the count of runs that match `scope`.

    `root` and `project` are additional selections, at the top level and of the project.
    """
    return f"""query MirrorRuns($entity: String!, $project: String!, $scope: JSONString, $filters: JSONString,
    $order: String, $first: Int, $after: String) {{
  {root}
  project(name: $project, entityName: $entity) {{
    {project}
    runCount(filters: $scope)
    runs(filters: $filters, order: $order, first: $first, after: $after) {{
      edges {{ node {{ {fields} }} }}
      pageInfo {{ endCursor hasNextPage }}
    }}
  }}
}}"""


def history(count: int) -> str:
    """Return the query for the history of `count` runs, each under an alias `r0`, `r1`, ... with its own bounds."""
    return _aliased(
        "MirrorHistory",
        count,
        ("$min{i}: Int64!, $max{i}: Int64!, $samples{i}: Int!"),
        "history(minStep: $min{i}, maxStep: $max{i}, samples: $samples{i})",
    )


def file_addresses(count: int) -> str:
    """Return the query for one file, by name, of each of `count` runs, and the number of files of each run."""
    return _aliased(
        "MirrorFiles",
        count,
        "",
        "fileCount files(names: $names, first: 1) {{ edges {{ node {{ "
        "id name directUrl sizeBytes mimetype updatedAt md5 }} }} }}",
        "$names: [String]",
    )


def file_lists(count: int) -> str:
    """Return the query for a page of the files of each of `count` runs."""
    return _aliased(
        "MirrorFileLists",
        count,
        "$after{i}: String",
        "files(first: $first, after: $after{i}) {{ edges {{ node {{ id name sizeBytes mimetype updatedAt md5 }} }} "
        "pageInfo {{ endCursor hasNextPage }} }}",
        "$first: Int",
    )


def content_addresses(count: int) -> str:
    """Return the query for the addresses of some files of each of `count` runs, and what the server says of them."""
    return _aliased(
        "MirrorContents",
        count,
        "$names{i}: [String]",
        "files(names: $names{i}, first: $first) {{ edges {{ node {{ "
        "id name directUrl url(upload: false) sizeBytes mimetype updatedAt md5 }} }} }}",
        "$first: Int",
    )


def log_lines(count: int, fields: str, counted: str, *, heads: bool) -> str:
    """Return the query for a page of the console of each of `count` runs, with `counted` and, with `heads`, line 0."""
    head = f"head: logLines(first: 1, {CONSOLE_PAGES}: true) {{{{ edges {{{{ node {{{{ {fields} }}}} }}}} }}}}"
    return _aliased(
        "MirrorConsole",
        count,
        "$after{i}: String",
        f"{counted} {head if heads else ''} logLines(first: $first, after: $after{{i}}, {CONSOLE_PAGES}: true) {{{{ "
        f"edges {{{{ node {{{{ {fields} }}}} }}}} pageInfo {{{{ endCursor hasNextPage }}}} }}}}",
        "$first: Int",
    )


def log_tails(count: int, fields: str, counted: str) -> str:
    """Return the query for the end of the console of each of `count` runs, which every server supports."""
    field = f"{counted} logLines(last: $first) {{{{ edges {{{{ node {{{{ {fields} }}}} }}}} }}}}"
    return _aliased("MirrorConsole", count, "", field, "$first: Int")


def events(count: int) -> str:
    """Return the query for the system metrics of `count` runs."""
    return _aliased("MirrorEvents", count, "$samples{i}: Int!", "events(samples: $samples{i})")


def exports(count: int) -> str:
    """Return the query for the addresses of the exported history of `count` runs, and the steps not exported yet."""
    field = 'parquetHistory(liveKeys: ["_step"]) {{ parquetUrls liveData }}'
    return _aliased("MirrorExports", count, "", field)


def _aliased(operation: str, count: int, variables: str, field: str, shared: str = "") -> str:
    """Return a query for `field` of `count` runs. `{i}` in variables is the run's index; `shared` ones apply to all."""
    own = [f"$run{i}: String!, {variables.format(i=i)}".removesuffix(", ") for i in range(count)]
    declared = ", ".join([*([shared] if shared else []), *own])
    selected = "\n".join(f"    r{i}: run(name: $run{i}) {{ {field.format(i=i)} }}" for i in range(count))
    return (
        f"query {operation}($entity: String!, $project: String!, {declared}) {{\n"
        f"  project(name: $project, entityName: $entity) {{\n{selected}\n  }}\n}}"
    )
