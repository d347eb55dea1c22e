"""The GraphQL schema of one server: all of schema.graphql, or a part of it, as on an older server."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from graphql import GraphQLSchema, build_schema

# The names of features, and the fields that a server without the feature lacks.
FEATURE_FIELDS: dict[str, tuple[str, ...]] = {
    "parquet": ("Run.parquetHistory",),
    # Servers before 0.77 have the console, but no way to page through it.
    "console_pages": ("Run.logLines(useImprovedPagination)",),
    "models": ("Query.models",),
    "updated_at": ("Run.updatedAt",),
    "server_features": ("ServerInfo.features",),
    "server_info": ("Query.serverInfo",),
    "history_keys": ("Run.historyKeys",),
    "history_line_count": ("Run.historyLineCount",),
    "run_count": ("Project.runCount",),
    "project_activity": ("Project.updatedAt", "Project.lastActive", "Project.totalRuns"),
    "run_control": ("Run.stopped", "Run.exitcode"),
    "default_entity": ("User.defaultEntity",),
    "organizations": ("Query.organization", "Entity.organization", "Entity.projects", "Query.entity"),
    "artifact_facts": (
        *(f"Artifact.{name}" for name in ("ttlDurationSeconds", "updatedAt", "createdBy", "tags")),
        *(f"{kind}.updatedAt" for kind in ("ArtifactCollection", "ArtifactSequence")),
    ),
    "artifact_collections": ("Project.artifactCollections",),
    "artifact_usage": ("Run.inputArtifacts", "Run.outputArtifacts"),
    "ARTIFACT_COLLECTIONS_FILTERING_SORTING": ("ArtifactCollectionConnection.totalCount",),
    "SWEEPS_QUERY_FILTERING": ("Project.sweeps(filters)",),
    "SWEEPS_LOCAL_SCHEDULER": ("Mutation.enqueueSweepRun",),
    "sweeps": ("Project.sweeps", "Project.sweep", "Project.totalSweeps"),
    "reports": ("Project.allViews", "Query.view"),
    "views_by_id": ("Query.view",),
    "UPDATE_RUN_STATE": ("Mutation.updateRunState",),
}
FILTER_COLUMNS = {"updated_at_filter": "updatedAt", "heartbeat_at_filter": "heartbeatAt"}
SERVER_FEATURES = (
    *("MARK_RUN_FILES_UPLOADED", "FILESTREAM_GZIP", "SWEEPS_QUERY_FILTERING", "SWEEPS_LOCAL_SCHEDULER"),
    *("UPDATE_RUN_STATE", "ARTIFACT_TAGS", "CLIENT_IDS", "ARTIFACT_COLLECTION_MEMBERSHIP_FILES"),
    *("PROJECT_ARTIFACT_COLLECTION_MEMBERSHIP", "ARTIFACT_COLLECTIONS_FILTERING_SORTING", "ARTIFACT_DIGEST_ALGORITHM"),
    *("ARTIFACT_COLLECTION_MEMBERSHIP_FILE_DOWNLOAD_HANDLER", "ARTIFACT_V2_DOWNLOAD_HANDLER_SUPPORTS_ARTIFACT_ID"),
    *("USE_ARTIFACT_WITH_ENTITY_AND_PROJECT_INFORMATION", "TOTAL_COUNT_IN_FILE_CONNECTION"),
    "ARTIFACT_MEMBERSHIP_IN_LINK_ARTIFACT_RESPONSE",
)


def missing_fields(features: Mapping[str, bool]) -> frozenset[str]:
    """Return the fields, as `Type.field`, and arguments, as `Type.field(name)`, that such a server lacks.

    Raises ValueError for an unknown feature.
    """
    absent: set[str] = set()
    for name, enabled in features.items():
        if name not in FEATURE_FIELDS and name not in FILTER_COLUMNS and name not in SERVER_FEATURES:
            known = ", ".join(sorted([*FEATURE_FIELDS, *FILTER_COLUMNS, *SERVER_FEATURES]))
            raise ValueError(f"unknown server feature {name!r}; there are {known}")
        if not enabled:
            absent.update(FEATURE_FIELDS.get(name, ()))
    return frozenset(absent)


@lru_cache(maxsize=32)
def load(absent: frozenset[str] = frozenset()) -> GraphQLSchema:
    """Return the schema without the fields and arguments in `absent`."""
    schema = build_schema((Path(__file__).parent / "schema.graphql").read_text())
    for name in absent:
        kind, _, rest = name.partition(".")
        field, _, argument = rest.rstrip(")").partition("(")
        fields = schema.type_map[kind].fields  # type: ignore[attr-defined]
        if argument:
            del fields[field].args[argument]
        else:
            del fields[field]
    return schema
