"""The content of artifacts over HTTP: signed addresses of the object store, and addresses that need the key."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mirror.sandbox import manifests
from mirror.sandbox.answers import file_answer, json_answer, storage_refusal
from mirror.sandbox.artifacts import Artifacts

Refusal = Callable[[Request], Response | None]


class Answer(Protocol):
    """The checks that every request passes, see app.Gate."""

    def __call__(
        self, request: Request, operation: str, produce: Callable[[], Response], *, signed: bool = False
    ) -> Awaitable[Response]:
        """Return the answer of `produce`, unless a check answers first."""
        ...


class ArtifactStorage:
    """The addresses of the content of artifacts and of their manifests."""

    def __init__(self, artifacts: Artifacts, answer: Answer, refusal: Refusal) -> None:
        """`refusal` returns the refusal of an address whose signature is not valid."""
        self._artifacts = artifacts
        self._answer = answer
        self._refusal = refusal

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/storage/artifacts/{place:path}", self.stored, methods=["GET", "PUT"]),
            Route("/storage/manifests/{key}", self.manifest, methods=["GET", "PUT"]),
            # With the key of the API: layout V1, and V2 with or without the id of the artifact.
            Route("/artifacts/{entity}/{digest}", self.keyed_v1, methods=["GET"]),
            Route("/artifactsV2/{region}/{rest:path}", self.keyed_v2, methods=["GET"]),
        ]

    async def stored(self, request: Request) -> Response:
        """GET or PUT of signed content."""
        place = request.path_params["place"]
        if request.method == "GET":
            return await self._answer(
                request, "artifact", lambda: self._refusal(request) or self._content(request, place), signed=True
            )
        content = await request.body()

        def upload() -> Response:
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
            if base64.b64decode(manifests.md5(content)).hex() != place.rpartition("/")[2]:
                return storage_refusal("BadDigest", 400)
            self._artifacts.contents[place] = content
            return Response(b"", 200)

        return await self._answer(request, "upload", upload, signed=True)

    async def manifest(self, request: Request) -> Response:
        """GET or PUT of a signed manifest."""
        content = await request.body()
        storage_id = base64.b64encode(bytes.fromhex(request.path_params["key"])).decode()

        def produce() -> Response:
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
            artifact = self._artifacts.find(storage_id)
            if artifact is not None and request.method == "PUT":
                artifact.manifest = content
                return Response(b"", 200)
            if artifact is None or artifact.manifest is None:
                return storage_refusal("NoSuchKey", 404)
            return file_answer(artifact.manifest, "application/json", request.headers.get("range"))

        operation = "upload" if request.method == "PUT" else "manifest"
        return await self._answer(request, operation, produce, signed=True)

    async def keyed_v1(self, request: Request) -> Response:
        """GET /artifacts/{entity}/{digest}, with the key"""  # noqa: D400, D415
        place = "{entity}/{digest}".format_map(request.path_params)
        return await self._answer(request, "artifact", lambda: self._content(request, place))

    async def keyed_v2(self, request: Request) -> Response:
        """GET /artifactsV2/{region}/{entity}/{project}/{collection}/[{id}/]{birth id}/{digest}/{name}, with the key"""  # noqa: D400, D415

        def produce() -> Response:
            try:
                *_, birth, digest, _name = request.path_params["rest"].split("/")
                return self._content(request, f"{base64.b64decode(birth, validate=True).hex()}/{digest}")
            except ValueError:
                return json_answer({"error": "file not found"}, 404)

        return await self._answer(request, "artifact", produce)

    def _content(self, request: Request, place: str) -> Response:
        content = self._artifacts.contents.get(place)
        if content is None:
            return storage_refusal("NoSuchKey", 404)
        return file_answer(content, "application/octet-stream", request.headers.get("range"))
