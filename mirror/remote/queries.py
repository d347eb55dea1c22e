"""The GraphQL documents that are sent. Each field stands in the official SDK's own queries."""

from __future__ import annotations

VIEWER = "query Viewer { viewer { id username entity } }"

PROJECTS = """query MirrorProjects($entity: String, $after: String, $first: Int) {
  models(entityName: $entity, after: $after, first: $first) {
    edges { node { name } }
    pageInfo { endCursor hasNextPage }
  }
}"""

HEAD_FIELDS = "name state createdAt heartbeatAt updatedAt historyLineCount"
"""Enough of a run to see that it changed; what a poll asks for."""

RUN_FIELDS = """id name displayName state createdAt heartbeatAt updatedAt group jobType sweepName notes
  description tags commit host config summaryMetrics historyLineCount historyKeys user { id name username }"""
"""All that is mirrored of a run but its history."""

DURATION_FIELD = "computeSeconds"
"""Seen in public clients, but in no query of the official SDK; asked for beside RUN_FIELDS while the server has it."""

FACT_FIELDS = ("projectId", "readOnly", "stopped", "exitcode", "systemMetrics")
"""What is kept for clients of the API as the server tells it."""

OPTIONAL_FIELDS = {
    "runInfo": "runInfo { program args os python gpu gpuCount cpuCount git { commit remote } }",
    **{name: name for name in ("eventsLineCount", "logLineCount", *FACT_FIELDS)},
}
"""More of the kind, by the name with which a server refuses them."""

KEPT_FIELDS = "name commit user { id name username } historyKeys"
"""What is asked for beside OPTIONAL_FIELDS of runs that were mirrored before this was kept."""

KEYS_FIELDS = "name historyKeys"
"""Which keys each run ever logged."""

LINE_FIELDS = "number timestamp level label line"
PLAIN_LINE_FIELDS = "level line"
"""What older servers have of a console line."""

CONSOLE_PAGES = "useImprovedPagination"
"""Without this argument, which servers before 0.77 lack, `first` is ignored and `after` counts from the end."""


def runs(fields: str, root: str = "", project: str = "") -> str:
    """One page of runs under `filters`, and how many runs there are under `scope`, in one request.

    `root` and `project` are selections that are asked for besides, at the top and of the project.
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
    """History of `count` runs in one request, each under an alias `r0`, `r1`, ... with bounds of its own."""
    return _aliased(
        "MirrorHistory",
        count,
        ("$min{i}: Int64!, $max{i}: Int64!, $samples{i}: Int!"),
        "history(minStep: $min{i}, maxStep: $max{i}, samples: $samples{i})",
    )


def file_addresses(count: int) -> str:
    """One file by its name of `count` runs in one request, and how many files each has."""
    return _aliased(
        "MirrorFiles",
        count,
        "",
        "fileCount files(names: $names, first: 1) {{ edges {{ node {{ "
        "id name directUrl sizeBytes mimetype updatedAt md5 }} }} }}",
        "$names: [String]",
    )


def file_lists(count: int) -> str:
    """A page of the files of `count` runs in one request."""
    return _aliased(
        "MirrorFileLists",
        count,
        "$after{i}: String",
        "files(first: $first, after: $after{i}) {{ edges {{ node {{ id name sizeBytes mimetype updatedAt md5 }} }} "
        "pageInfo {{ endCursor hasNextPage }} }}",
        "$first: Int",
    )


def log_lines(count: int, fields: str, counted: str, *, heads: bool) -> str:
    """A page of the console of `count` runs in one request, `counted` beside it, with `heads` its first line, too."""
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
    """The end of the console of `count` runs in one request, as every server gives it."""
    field = f"{counted} logLines(last: $first) {{{{ edges {{{{ node {{{{ {fields} }}}} }}}} }}}}"
    return _aliased("MirrorConsole", count, "", field, "$first: Int")


def events(count: int) -> str:
    """System metrics of `count` runs in one request."""
    return _aliased("MirrorEvents", count, "$samples{i}: Int!", "events(samples: $samples{i})")


def exports(count: int) -> str:
    """Where the exported history of `count` runs lies, in one request, and which steps are not exported yet."""
    field = 'parquetHistory(liveKeys: ["_step"]) {{ parquetUrls liveData }}'
    return _aliased("MirrorExports", count, "", field)


def _aliased(operation: str, count: int, variables: str, field: str, shared: str = "") -> str:
    """`field` of `count` runs; its variables have the place of the run for `{i}`, `shared` ones hold for all."""
    own = [f"$run{i}: String!, {variables.format(i=i)}".removesuffix(", ") for i in range(count)]
    declared = ", ".join([*([shared] if shared else []), *own])
    selected = "\n".join(f"    r{i}: run(name: $run{i}) {{ {field.format(i=i)} }}" for i in range(count))
    return (
        f"query {operation}($entity: String!, $project: String!, {declared}) {{\n"
        f"  project(name: $project, entityName: $entity) {{\n{selected}\n  }}\n}}"
    )
