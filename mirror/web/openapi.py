"""Describes the query API as an OpenAPI document."""

from __future__ import annotations

from typing import Any

from mirror.version import VERSION

KINDS = {str: "a text", list: "a list", dict: "an object", int: "a whole number", float: "a number"}
"""How messages name the types of JSON."""

_ERRORS = {
    "400": "The request, its SQL, its filter or its order is not valid",
    "401": "The token is missing, wrong, revoked or expired",
    "403": "The statement does more than read, or reads what the token may not read",
    "404": "The project is not mirrored",
    "410": "The snapshot is no longer kept: ask without it",
    "406": "Accept names no format that there is",
    "413": "The body is too long",
    "421": "Without a token, only requests to a loopback address are answered",
    "429": "Too many queries, or too many wrong tokens; Retry-After says when to try again",
    "503": "The mirror cannot be read, or its daemon is stopping",
    "504": "The query took longer than its time limit",
}

_SNAPSHOT = "X-Mirror-Snapshot"
_HEADERS = {
    "X-Mirror-As-Of": "The time up to which the data is complete, UTC; absent before the first complete pass",
    "X-Mirror-Lag": "How many seconds ago that was",
    "X-Mirror-Rows": "How many rows there are; absent from long answers, where it is known only at the end",
    "X-Mirror-Truncated": "true if there were more rows than the limit; absent from long answers",
    "X-Mirror-Limit": "The limit of rows that was applied",
    _SNAPSHOT: "The snapshot that was read; a statement with it reads the same one, for ten minutes after its last use",
    "ETag": "Changes with the question and the snapshot; If-None-Match with it is answered 304",
}

_ROWS = {
    "type": "object",
    "properties": {
        "as_of": {"type": ["string", "null"], "format": "date-time"},
        "lag_s": {"type": ["number", "null"]},
        "columns": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "type": {"type": "string"}}},
        },
        "rows": {"type": "array", "items": {"type": "array"}},
        "row_count": {"type": "integer"},
        "truncated": {"type": "boolean"},
    },
    "required": ["as_of", "lag_s", "columns", "rows", "row_count", "truncated"],
}

_QUERY = {
    "oneOf": [
        {
            "type": "object",
            "properties": {
                "sql": {"type": "string", "description": "One statement that reads"},
                "parameters": {"type": ["array", "object"], "description": "Values for ?, or for $name"},
                "limit": {"type": "integer", "minimum": 0, "default": 10000},
                "timeout": {"type": "number", "default": 60, "description": "Seconds, at most 600"},
            },
            "required": ["sql"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "project": {"type": "string", "description": "entity/project"},
                "filter": {"type": ["object", "string"], "description": "A run filter, as the official client has it"},
                "order": {"type": "string", "description": "Such as -summary_metrics.acc"},
                "select": {"type": "array", "items": {"type": "string"}},
                "limit": {"type": "integer", "minimum": 0, "default": 10000},
                "timeout": {"type": "number", "default": 60, "description": "Seconds, at most 600"},
            },
            "required": ["project"],
            "additionalProperties": False,
        },
    ]
}

_STATEMENT = {
    "type": "object",
    "properties": {
        "sql": {"type": "string", "description": "One statement that reads"},
        "parameters": {"type": ["array", "object"], "description": "Values for ?, or for $name"},
        "snapshot": {"type": "string", "description": "The X-Mirror-Snapshot of an earlier answer"},
    },
    "required": ["sql"],
    "additionalProperties": False,
}

_BINARY = {"type": "string", "format": "binary"}

_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "comment": {"type": ["string", "null"]},
            "columns": {"type": "array", "items": {"type": "object"}},
        },
    },
}


def document() -> dict[str, Any]:
    """The OpenAPI document of the routes that take tokens."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "wandb-mirror", "version": VERSION, "description": "Read-only queries over the mirror"},
        "security": [{"token": []}],
        "paths": {
            "/api/query": {
                "post": {
                    "summary": "Answer one SQL statement, or list the runs of a project that match a filter",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": _QUERY}}},
                    "responses": {
                        "200": _rows(),
                        "304": {"description": "Not changed"},
                        **_errors(*(status for status in _ERRORS if status != "410")),
                    },
                }
            },
            "/api/statements": {
                "post": {
                    "summary": "Answer a statement of mirror.connect(url) or mirror.Api(url=...)",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": _STATEMENT}}},
                    "responses": {
                        "200": _content("The rows", {"application/vnd.apache.arrow.stream": _BINARY}, [_SNAPSHOT]),
                        **_errors("400", "401", "403", "410", "413", "421", "429", "503", "504"),
                    },
                }
            },
            "/api/content": {
                "get": {
                    "summary": "The content of a file, by its SHA-256",
                    "parameters": [
                        {"name": "sha256", "in": "query", "required": True, "schema": {"type": "string"}},
                    ],
                    "responses": {
                        "200": _content("The bytes", {"application/octet-stream": _BINARY}),
                        **_errors("401", "404", "421", "429", "503"),
                    },
                }
            },
            "/api/schema": {
                "get": {
                    "summary": "The relations that SQL can read, with their columns and comments",
                    "responses": {
                        "200": _content("The relations", {"application/json": _SCHEMA}, ["ETag"]),
                        "304": {"description": "Not changed"},
                        **_errors("401", "421", "429", "503"),
                    },
                }
            },
            "/api/openapi.json": {
                "get": {
                    "summary": "This document",
                    "responses": {
                        "200": _content("This document", {"application/json": {"type": "object"}}),
                        **_errors("401", "421", "429"),
                    },
                }
            },
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "`mirror token add`"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}, "hint": {"type": "string"}},
                    "required": ["error", "hint"],
                }
            },
        },
    }


def _rows() -> dict[str, Any]:
    media = {
        "application/json": _ROWS,
        "application/x-ndjson": {"type": "string"},
        "text/csv": {"type": "string"},
        "application/vnd.apache.arrow.stream": _BINARY,
        "application/vnd.apache.parquet": _BINARY,
    }
    return _content(
        "The rows, in the format that Accept names", media, [name for name in _HEADERS if name != _SNAPSHOT]
    )


def _content(description: str, media: dict[str, Any], headers: list[str] | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "content": {name: {"schema": schema} for name, schema in media.items()},
        "headers": {name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in headers or []},
    }


def _errors(*statuses: str) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": _ERRORS[status], "content": error} for status in statuses}
