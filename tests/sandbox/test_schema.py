"""The schema holds what the official client asks for, and refuses the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import wandb
from graphql import DocumentNode, GraphQLError, GraphQLInputObjectType, GraphQLObjectType, parse, validate
from graphql.language import NameNode, Visitor, visit

from mirror.sandbox import Sandbox, World, sample, schema
from mirror.sandbox.resolvers import RESOLVERS
from tests.sandbox.conftest import Client, connected

# In the client, but not in a whole document: put into one at run time, or in the repository's .graphql files alone.
CLIENT_ELSEWHERE = {
    "DeleteRunInput.deleteArtifacts", "Run.events", "ServerInfo.cliVersionInfo", "ServerInfo.latestLocalVersionInfo",
    "UpsertSweepInput.launchScheduler", "UpsertSweepInput.templateVariableValues",
    "LocalVersionInfo.outOfDate", "LocalVersionInfo.latestVersionString", "LocalVersionInfo.versionOnThisInstanceString",
}  # fmt: skip
# What other public clients of the API ask for.
OTHER_CLIENTS = {
    "GitInfo.remote", "Run.computeSeconds", "Run.runInfo", "RunInfo.args", "RunInfo.cpuCount", "RunInfo.git", "RunInfo.gpu", "RunInfo.gpuCount", "RunInfo.os", "RunInfo.python",
    "RunInfo.codeSaved", "RunInfo.colab", "RunInfo.executable",
    "PageInfo.hasPreviousPage", "PageInfo.startCursor", "Project.buckets", "Project.lastActive",
    "Run.history.maxKeyLimit", "Run.summaryMetrics.packVersion", "User.defaultEntity",
    "Sweep.priorRuns",
    # wandb-workspaces, which writes reports and saved views.
    "Query.view", "Mutation.upsertView", "Mutation.deleteView",
    "DeleteViewInput.deleteDrafts", "DeleteViewPayload.pendingDrafts", "UpsertViewInput.createdUsing",
    "UpsertViewPayload.view", "Project.allViews.userName",
}  # fmt: skip


@cache
def client_documents() -> list[DocumentNode]:
    """Every GraphQL document that stands in the client's Python source and in its core program."""
    root = Path(wandb.__file__).parent
    texts = [text for path in root.rglob("*.py") for text in re.findall(r'"""(.*?)"""', path.read_text(), re.DOTALL)]
    texts += core_documents((root / "bin" / "wandb-core").read_bytes())
    found = []
    for text in texts:
        for form in (text, text.replace("{}", "").replace("{{", "{").replace("}}", "}")):
            try:
                found.append(parse(form))
            except GraphQLError:
                continue
            break
    return found


def core_documents(program: bytes) -> Iterator[str]:
    for match in re.finditer(rb"(?:query|mutation) [A-Z]\w+\s*(?:\([^{}]{0,1500}\))? ?\{", program):
        text = program[match.start() : match.start() + 8000].decode("utf-8", "replace")
        depth = 0
        for place, letter in enumerate(text):
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if letter == "}" and depth == 0:
                yield text[: place + 1]
                break


@cache
def client_names() -> frozenset[str]:
    names: set[str] = set()

    class Names(Visitor):
        def enter_name(self, node: NameNode, *_rest: object) -> None:
            names.add(node.value)

    for document in client_documents():
        visit(document, Names())
    return frozenset(names)


@cache
def client_inputs() -> frozenset[str]:
    """The names of the fields of the inputs that the client writes: in its core program, and in Python."""
    root = Path(wandb.__file__).parent
    core = re.findall(rb'json:"(\w+)[",]', (root / "bin" / "wandb-core").read_bytes())
    python = re.findall(r'alias="(\w+)"', (root / "sdk/artifacts/_generated/input_types.py").read_text())
    return frozenset({name.decode() for name in core} | set(python))


def test_every_field_and_argument_is_one_that_a_client_uses() -> None:
    kinds = schema.load().type_map.values()
    unknown = set()
    for kind in kinds:
        if kind.name.startswith("__") or not isinstance(kind, GraphQLObjectType | GraphQLInputObjectType):
            continue
        names = client_names() | (client_inputs() if isinstance(kind, GraphQLInputObjectType) else set())
        for name, field in kind.fields.items():
            if name not in names:
                unknown.add(f"{kind.name}.{name}")
            for argument in getattr(field, "args", {}):
                if argument not in client_names():
                    unknown.add(f"{kind.name}.{name}.{argument}")
    assert unknown == CLIENT_ELSEWHERE | OTHER_CLIENTS


@pytest.mark.parametrize(
    "name",
    [
        "CreateProject", "CreateRunFiles", "DeleteRun", "EnqueueSweepRun", "GetDefaultEntity", "GetProject", "GetProjects", "GetSweep",
        "CreateAgent", "GetAgentRuns", "GetSweepAgent", "GetSweepAgents", "GetSweepLegacy", "GetSweepState", "GetSweeps", "Heartbeat", "ProjectViews", "SweepWithRuns", "GetViewer", "HistoryPage", "MarkRunFilesUploaded", "QueryRunInfo", "RewindRun",
        "RunConsoleLogPage", "RunConsoleLogTail", "RunHistoryKeys", "RunParquetHistory", "RunResumeStatus",
        "RunSampledHistory", "RunState", "SampledHistoryPage", "ServerFeaturesQuery", "StopRun", "UpdateRunState",
        "Viewer",
        "AddAliases", "ArtifactByID", "ArtifactCollectionAliases", "ArtifactCreatedBy", "ArtifactFileURLsByManifestEntries",
        "ArtifactManifest", "ArtifactMembershipByName", "ArtifactMembershipFiles", "ArtifactType",
        "ArtifactTypeArtifactCollections", "ArtifactUsedBy", "ClientIDMapping", "CommitArtifact", "CreateArtifactFiles",
        "CreateArtifactManifest", "DeleteAliases", "DeleteArtifact", "FetchArtifactDigestAlgorithm",
        "FetchArtifactManifest", "FetchLinkedArtifacts", "LinkArtifact", "GetArtifactMembershipFileUrls", "ProjectArtifactCollection",
        "ProjectArtifactCollections", "ProjectArtifactType", "ProjectArtifactTypes", "ProjectArtifacts",
        "RunInputArtifacts", "RunOutputArtifacts", "UpdateArtifact", "UpdateArtifactManifest", "UpdateArtifactSequence", "UseArtifact",
        "AddArtifactCollectionTags", "DeleteArtifactCollectionTags",
    ],
)  # fmt: skip
def test_the_clients_own_documents_are_valid(name: str) -> None:
    named = [
        document
        for document in client_documents()
        if getattr(getattr(document.definitions[0], "name", None), "value", None) == name
    ]
    assert named
    for document in named:
        assert validate(schema.load(), document) == []


def test_every_field_is_answered() -> None:
    """A field is answered by a resolver, or its type is one that is answered from plain mappings."""
    for name, resolvers in RESOLVERS.items():
        fields = schema.load().type_map[name].fields  # type: ignore[attr-defined]
        assert set(resolvers) <= set(fields)
        if name in ("Query", "Mutation", "Project", "Run", "Sweep", "Entity") or name.startswith("Artifact"):
            assert set(resolvers) == set(fields)


def test_an_unknown_field_is_refused_as_the_real_server_does(client: Client) -> None:
    answer = client.post("query Bad { viewer { nothing } }")
    assert answer.status_code == 400
    assert answer.json() == {"errors": [{"message": 'Cannot query field "nothing" on type "User".'}]}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ viewer { id }", "Syntax Error"),
        ("query ($n: String!) { project(name: $n) { id } }", '"$n"'),
        ('{ project(nome: "x") { id } }', 'Unknown argument "nome"'),
        ("{ project { run { id } } }", "is required, but it was not provided"),
        ("{ __schema { types { name } } }", "introspection is disabled"),
        ("{ viewer }", "must have a selection of subfields"),
    ],
)
def test_other_documents_that_are_refused(client: Client, query: str, message: str) -> None:
    answer = client.post(query)
    assert answer.status_code == 400
    assert message in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    ("feature", "query", "refused"),
    [
        (
            "parquet",
            '{ project { run(name: "x") { parquetHistory(liveKeys: []) { parquetUrls } } } }',
            "parquetHistory",
        ),
        ("models", "{ models { edges { cursor } } }", "models"),
        ("updated_at", '{ project { run(name: "x") { updatedAt } } }', "updatedAt"),
        ("server_info", "{ serverInfo { features { name } } }", "serverInfo"),
    ],
)
def test_an_older_server_lacks_fields(feature: str, query: str, refused: str) -> None:
    with Sandbox(World(), features={feature: False}) as server, connected(server) as client:
        assert client.errors(query)[0].startswith(f'Cannot query field "{refused}"')
    with Sandbox(World()) as server, connected(server) as client:
        client.data(query)


def test_an_older_server_does_not_filter_by_updated_at() -> None:
    query = """query F($f: JSONString) { project(name: "vision") { runCount(filters: $f) } }"""
    since = '{"$and": [{"updatedAt": {"$gt": "2025-01-01"}}]}'
    with Sandbox(sample.small(), features={"updated_at_filter": False}) as server, connected(server) as client:
        assert client.errors(query, f=since) == ["invalid filters: unknown field: updatedAt"]
    with Sandbox(sample.small()) as server, connected(server) as client:
        assert client.data(query, f=since) == {"project": {"runCount": 5}}


def test_a_feature_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown server feature 'parket'"):
        Sandbox(World(), features={"parket": False})


def test_directives_fragments_and_merged_fields(client: Client) -> None:
    query = """query D($no: Boolean!) {
      viewer { id @include(if: $no) username @skip(if: $no) }
      project(name: "vision") { ...A ... on Project { runCount } }
      project(name: "vision") { entityName }
    }
    fragment A on Project { __typename name }"""
    assert client.data(query, no=False) == {
        "viewer": {"username": "ada"},
        "project": {"__typename": "Project", "name": "vision", "runCount": 5, "entityName": "my-team"},
    }
