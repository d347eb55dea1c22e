"""A W&B-shaped endpoint over the mirror, for scripts written for the official SDK; see docs/sdk.md."""

from __future__ import annotations

ARTIFACTS = ("/artifacts/", "/artifactsV2/", "/artifact-manifests/")
"""Files of artifacts in the server's layouts V1 and V2, and their manifests, which the server has elsewhere."""

PATHS = ("/graphql", "/files/", *ARTIFACTS)
"""The paths of the endpoint; everything else on the port belongs to the page."""
