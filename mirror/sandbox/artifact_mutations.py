"""How the official client's mutations of artifacts change the world."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from mirror.sandbox.artifact_fields import Membership, manifest_node, tag_node
from mirror.sandbox.artifacts import Artifact, Collection, address
from mirror.sandbox.context import Context
from mirror.sandbox.documents import Resolver
from mirror.sandbox.errors import Refused
from mirror.sandbox.manifests import Entry

Input = Mapping[str, Any]


def _create(context: Context, given: Input) -> dict[str, Any]:
    """Create a version that waits for its files; the latest version is returned if it has the same content."""
    store = context.world.artifacts
    context.world.add_project(given["entityName"], given["projectName"])
    names = [given.get("artifactCollectionName"), *(given.get("artifactCollectionNames") or ())]
    name = next((each for each in names if each), None)
    if name is None:
        raise Refused("the artifact has no name", 400)
    collection = store.place(given["entityName"], given["projectName"], given["artifactTypeName"], name)
    aliases = tuple(alias["alias"] for alias in given.get("aliases") or ())
    run = context.run_at(given) if given.get("runName") else None
    latest = collection.latest
    if given.get("enableDigestDeduplication") and latest is not None and latest.digest == given["digest"]:
        store.name(latest, aliases)
        if run is not None:
            run.log_artifact(latest)
        return {"artifact": latest}
    artifact = store.start(
        collection,
        given["digest"],
        run_id=None if run is None else run.storage_id,
        description=given.get("description"),
        metadata=given.get("metadata"),
        ttl_seconds=given.get("ttlDurationSeconds"),
        history_step=given.get("historyStep"),
        client_id=given.get("clientID"),
        tags=[tag["tagName"] for tag in given.get("tags") or ()],
        asked_aliases=aliases,
    )
    return {"artifact": artifact}


def _create_manifest(context: Context, given: Input) -> dict[str, Any]:
    artifact = context.world.artifacts.needed(given["artifactID"])
    if given.get("type") == "PATCH":
        raise Refused("distributed artifacts are not supported by this server", 400)
    if given.get("type") == "INCREMENTAL" and given.get("baseArtifactID"):
        artifact.base = context.world.artifacts.needed(given["baseArtifactID"])
    return {"artifactManifest": manifest_node(context, artifact)}


def _update_manifest(context: Context, given: Input) -> dict[str, Any]:
    try:
        _, _, number = base64.b64decode(given["artifactManifestID"], validate=True).decode().partition(":")
    except ValueError:
        number = ""
    artifact = context.world.artifacts.needed(base64.b64encode(f"Artifact:{number}".encode()).decode())
    return {"artifactManifest": manifest_node(context, artifact)}


def _create_files(context: Context, given: Input) -> dict[str, Any]:
    """Return where each file is uploaded; a file whose content the collection has already gets no address."""
    store = context.world.artifacts
    nodes = []
    for wanted in given["artifactFiles"]:
        artifact = store.needed(wanted["artifactID"])
        artifact.layout = given.get("storageLayout") or "V1"
        nodes.append(_file_to_upload(context, artifact, wanted["name"], wanted["md5"]))
    return {"files": {"totalCount": len(nodes), "edges": [{"node": node, "cursor": ""} for node in nodes]}}


def _file_to_upload(context: Context, artifact: Artifact, name: str, digest: str) -> dict[str, Any]:
    store = context.world.artifacts
    held = next((entry for entry in store.stored(artifact.collection) if entry.digest == digest), None)
    birth = None if held is None or held.birth_id is None else store.find(held.birth_id)
    home = birth or artifact
    stored = address(artifact, Entry(name, digest, birth_id=home.storage_id))
    needed = stored not in store.contents
    return {
        "name": name,
        "storagePath": f"wandb_artifacts/{stored}",
        "uploadUrl": context.signed("PUT", f"/storage/artifacts/{stored}") if needed else None,
        "uploadHeaders": [f"Content-MD5:{digest}"] if needed else [],
        "uploadMultipartUrls": None,
        "artifact": home,
    }


def _commit(context: Context, given: Input) -> dict[str, Any]:
    artifact = context.world.artifacts.needed(given["artifactID"])
    if artifact.manifest is None:
        raise Refused("the artifact has no manifest", 400)
    context.world.commit_artifact(artifact)
    return {"artifact": artifact}


def _use(context: Context, given: Input) -> dict[str, Any]:
    artifact = context.world.artifacts.needed(given["artifactID"])
    context.run_at(given).use_artifact(artifact)
    return {"artifact": artifact}


def _update(context: Context, given: Input) -> dict[str, Any]:
    """Change what is given; null keeps a value."""
    artifact = context.world.artifacts.needed(given["artifactID"])
    if given.get("description") is not None:
        artifact.description = given["description"]
    if given.get("metadata") is not None:
        artifact.metadata = given["metadata"]
    if given.get("ttlDurationSeconds") is not None:
        seconds = given["ttlDurationSeconds"]
        artifact.ttl_seconds = seconds if seconds > 0 else None
    removed = {tag["tagName"] for tag in given.get("tagsToDelete") or ()}
    added = [tag["tagName"] for tag in given.get("tagsToAdd") or ()]
    artifact.tags = [tag for tag in dict.fromkeys([*artifact.tags, *added]) if tag not in removed]
    artifact.updated_at = context.world.moment()
    context.world.changed()
    return {"artifact": artifact}


def _delete(context: Context, given: Input) -> dict[str, Any]:
    artifact = context.world.artifacts.needed(given["artifactID"])
    if artifact.aliases not in ([], ["latest"]) and not given.get("deleteAliases"):
        raise Refused("cannot delete an artifact that has aliases", 409)
    context.world.artifacts.delete(artifact)
    return {"artifact": artifact}


def _update_sequence(context: Context, given: Input) -> dict[str, Any]:
    """Change the name and the description of a collection; null keeps a value."""
    collection = context.world.artifacts.collection(given["artifactSequenceID"])
    if collection is None:
        raise Refused(f"artifact collection not found: {given['artifactSequenceID']}", 404)
    if given.get("name") is not None:
        context.world.artifacts.rename(collection, given["name"])
    if given.get("description") is not None:
        collection.description = given["description"]
    collection.updated_at = context.world.moment()
    context.world.changed()
    return {"artifactCollection": collection}


def _tagged(context: Context, given: Input) -> tuple[Collection, list[str]]:
    known = context.world.artifacts.of_project(given["entityName"], given["projectName"])
    name = given["artifactCollectionName"]
    if name not in known:
        raise Refused(f"artifact collection not found: {name}", 404)
    known[name].updated_at = context.world.moment()
    context.world.changed()
    return known[name], [tag["tagName"] for tag in given["tags"]]


def _add_tags(context: Context, given: Input) -> dict[str, Any]:
    collection, names = _tagged(context, given)
    collection.tags = list(dict.fromkeys([*collection.tags, *names]))
    return {"tags": [tag_node(name) for name in names]}


def _delete_tags(context: Context, given: Input) -> dict[str, Any]:
    collection, names = _tagged(context, given)
    collection.tags = [tag for tag in collection.tags if tag not in names]
    return {"success": True}


def _link(context: Context, given: Input) -> dict[str, Any]:
    """Link a version to a portfolio, which is created if it does not exist."""
    store = context.world.artifacts
    by_client = store.by_client_id(given["clientID"]) if given.get("clientID") else None
    artifact = by_client or store.needed(given.get("artifactID") or "")
    entity, project = given.get("entityName") or context.world.entity, given.get("projectName") or "uncategorized"
    context.world.add_project(entity, project)
    portfolio = store.place(
        entity, project, artifact.collection.kind, given["artifactPortfolioName"] or "", portfolio=True
    )
    number = store.link(artifact, portfolio, [alias["alias"] for alias in given.get("aliases") or ()])
    return {"versionIndex": number, "artifactMembership": Membership(portfolio, artifact)}


def _aliased(context: Context, artifact: Artifact, alias: Input) -> Collection:
    """Return the collection that an alias of this artifact is meant for. Refuses one that the artifact is not in."""
    wanted = (alias["entityName"], alias["projectName"], alias["artifactCollectionName"])
    for place in context.world.artifacts.places(artifact):
        if (place.entity, place.project, place.name) == wanted:
            return place
    raise Refused(f"the artifact is not in {'/'.join(wanted)}", 404)


def _add_aliases(context: Context, given: Input) -> dict[str, Any]:
    artifact = context.world.artifacts.needed(given["artifactID"])
    for alias in given["aliases"]:
        context.world.artifacts.name(artifact, [alias["alias"]], _aliased(context, artifact, alias))
    return {"success": True}


def _delete_aliases(context: Context, given: Input) -> dict[str, Any]:
    artifact = context.world.artifacts.needed(given["artifactID"])
    for alias in given["aliases"]:
        place = _aliased(context, artifact, alias)
        if place.aliases.get(alias["alias"]) is artifact:
            del place.aliases[alias["alias"]]
    context.world.changed()
    return {"success": True}


MUTATIONS: dict[str, Resolver] = {
    "createArtifact": lambda _, context, arguments: _create(context, arguments["input"]),
    "createArtifactManifest": lambda _, context, arguments: _create_manifest(context, arguments["input"]),
    "updateArtifactManifest": lambda _, context, arguments: _update_manifest(context, arguments["input"]),
    "createArtifactFiles": lambda _, context, arguments: _create_files(context, arguments["input"]),
    "commitArtifact": lambda _, context, arguments: _commit(context, arguments["input"]),
    "useArtifact": lambda _, context, arguments: _use(context, arguments["input"]),
    "updateArtifact": lambda _, context, arguments: _update(context, arguments["input"]),
    "deleteArtifact": lambda _, context, arguments: _delete(context, arguments["input"]),
    "updateArtifactSequence": lambda _, context, arguments: _update_sequence(context, arguments["input"]),
    "createArtifactCollectionTagAssignments": lambda _, context, arguments: _add_tags(context, arguments["input"]),
    "deleteArtifactCollectionTagAssignments": lambda _, context, arguments: _delete_tags(context, arguments["input"]),
    "linkArtifact": lambda _, context, arguments: _link(context, arguments["input"]),
    "addAliases": lambda _, context, arguments: _add_aliases(context, arguments["input"]),
    "deleteAliases": lambda _, context, arguments: _delete_aliases(context, arguments["input"]),
}
