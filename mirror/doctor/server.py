"""Checks of the server: the key, whether it answers, its clock, its features, and access to the projects."""

from __future__ import annotations

import asyncio
import email.utils
import stat
import time
from collections.abc import AsyncIterator, Iterator, Mapping

import httpx

from mirror.doctor.findings import Finding, fail, ok, warn
from mirror.errors import AuthError, CommError
from mirror.patterns import fitting
from mirror.remote import console, parquet_history, queries, runs
from mirror.remote.client import FeatureMissing, NotFound, RetryPolicy, Server
from mirror.remote.page_size import PageSize
from mirror.settings import credentials
from mirror.settings.credentials import Credential
from mirror.settings.settings import Settings
from mirror.store.records import ProjectKey
from mirror.sync.targets import parse

MOST_PROJECTS = 20
"""The number of projects that are checked."""

SKEW_SECONDS = 60.0
"""A larger difference of this machine's clock from the server's is reported."""

_NOBODY = {"name": "no run is called so"}
_USES = {
    "updatedAt filter": "edits that move no heartbeat are found only by the full listing",
    "computeSeconds": "duration_s stays empty",
    parquet_history.FEATURE: "long histories are pulled in pages",
    queries.CONSOLE_PAGES: "only the end of a console is mirrored",
}


def check(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check the key and where it was found, then everything that needs requests to the server."""
    base_url = settings.server.base_url
    try:
        credential = credentials.find(base_url, environ)
    except AuthError as error:
        yield fail("key", str(error), "`mirror login` stores a key")
        return
    yield from _key(credential, environ)
    yield from asyncio.run(_ask(settings, credential))


def _key(credential: Credential, environ: Mapping[str, str]) -> Iterator[Finding]:
    yield ok("key", f"from {credential.source}")
    path = credentials.netrc_path(environ)
    if path.is_file() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        yield fail(
            "key", f"{path}, which contains keys, is accessible to other users ({mode:04o})", f"`chmod 600 {path}`"
        )


async def _ask(settings: Settings, credential: Credential) -> list[Finding]:
    timeout = settings.server.timeout
    async with Server(
        settings.server.base_url,
        credential.key,
        key_source=credential.source,
        timeout=timeout,
        retry=RetryPolicy(attempts=3, connects=2, seconds=timeout),
    ) as server:
        findings = [await _clock(settings)]
        try:
            viewer = await server.viewer()
        except AuthError as error:
            return [*findings, fail("server", str(error), "`mirror login` stores another key")]
        except CommError as error:
            return [*findings, fail("server", str(error), "check the network, and server.base_url in the config")]
        name, entity = viewer.get("username"), viewer.get("entity")
        findings.append(ok("server", f"{server.base_url} answers; the key belongs to {name} (entity {entity})"))
        return findings + [finding async for finding in _projects(server, settings)]


async def _clock(settings: Settings) -> Finding:
    """Compare this machine's clock with the server's Date header, which has whole seconds; no key is sent."""
    base_url = settings.server.base_url
    try:
        async with httpx.AsyncClient(timeout=settings.server.timeout) as client:
            before = time.time()
            # Only the head of the response: a body may be endless.
            async with asyncio.timeout(2 * settings.server.timeout), client.stream("GET", base_url) as answer:
                after = time.time()
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        return fail("clock", f"{base_url} does not answer ({reason})", "check the network, and server.base_url")
    date = email.utils.parsedate_tz(answer.headers.get("date", ""))
    if date is None:
        return ok("clock", f"{base_url} does not report its time")
    ahead = (before + after) / 2 - (email.utils.mktime_tz(date) + 0.5)
    if abs(ahead) <= SKEW_SECONDS:
        return ok("clock", f"within {max(1.0, abs(ahead)):.0f} s of the server's")
    side = "ahead of" if ahead > 0 else "behind"
    return warn(
        "clock",
        f"is {abs(ahead):,.0f} s {side} the server's",
        "set it (NTP); nothing is lost, but lag and retry times are wrong",
    )


async def _projects(server: Server, settings: Settings) -> AsyncIterator[Finding]:
    readable: list[ProjectKey] = []
    for path in settings.projects[:MOST_PROJECTS]:
        pattern = parse(path, settings.entity)
        try:
            names = [pattern.project]
            if pattern.wild:
                names = fitting(pattern.project, await runs.project_names(server, pattern.entity))
            if names != [pattern.project]:
                readable += [ProjectKey(pattern.entity, name) for name in names[:1]]
                if names:
                    yield ok(
                        "projects", f"{path} matches {len(names):,} {'project' if len(names) == 1 else 'projects'}"
                    )
                else:
                    yield warn("projects", f"no project matches {path}", "check the spelling; new ones are picked up")
                continue
            project = ProjectKey(pattern.entity, pattern.project)
            total = await _count(server, project, settings)
        except NotFound:
            yield fail(
                "projects", f"{path} is not on {server.base_url}, or the key may not read it", "check the spelling"
            )
        except CommError as error:
            yield fail("projects", f"{path}: {error}", "`mirror -v sync` shows details")
        else:
            readable.append(project)
            yield ok("projects", f"{path} can be read: {total:,} {'run' if total == 1 else 'runs'} in scope")
    if len(settings.projects) > MOST_PROJECTS:
        yield ok("projects", f"{len(settings.projects) - MOST_PROJECTS} more were not checked")
    if readable:
        yield await _features(server, readable[0])


async def _count(server: Server, project: ProjectKey, settings: Settings) -> int:
    pages = runs.heads(server, project, scope=settings.sync.filters, filters=_NOBODY)
    return max([page.total async for page in pages], default=0)


async def _features(server: Server, project: ProjectKey) -> Finding:
    """Send a pass's requests for a run that does not exist: a server that lacks a feature refuses the query itself."""
    try:
        try:
            since = {"updatedAt": {"$gte": "2999-01-01T00:00:00Z"}}
            async for _ in runs.heads(server, project, scope={}, filters=since):
                pass
        except FeatureMissing:
            server.missing_features.add("updatedAt filter")
        async for _ in runs.records(server, project, scope={}, filters=_NOBODY, size=PageSize(1)):
            pass
        await parquet_history.find(server, project, [_NOBODY["name"]])
        await console.fetch(server, project, [console.Position(_NOBODY["name"])])
    except CommError as error:
        return warn("features", f"the server's features could not be checked: {error}", "try again later")
    if not server.missing_features:
        return ok("features", "the server has every feature that the mirror can use")
    lacking = "; ".join(f"no {name}: {_USES.get(name, 'done another way')}" for name in sorted(server.missing_features))
    return ok("features", f"the server lacks features: {lacking}")
