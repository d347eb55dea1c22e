"""The server: the key, whether it answers, its clock, what it can do, and whether the projects can be read."""

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
from mirror.settings import credentials
from mirror.settings.credentials import Credential
from mirror.settings.settings import Settings
from mirror.store.records import ProjectKey
from mirror.sync.targets import parse

MOST_PROJECTS = 20
"""How many projects are asked for."""

SKEW_SECONDS = 60.0
"""How far this machine's clock may be off before it is worth a word."""

_NOBODY = {"name": "no run is called so"}
_USES = {
    "updatedAt filter": "edits that move no heartbeat are found by the full listing alone",
    "computeSeconds": "duration_s stays empty",
    parquet_history.FEATURE: "long histories are pulled in pages",
    queries.CONSOLE_PAGES: "of a console it gives the end alone",
}


def check(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The key and where it was found, then everything that the server has to be asked for."""
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
        yield fail("key", f"others may read {path}, which holds keys ({mode:04o})", f"`chmod 600 {path}`")


async def _ask(settings: Settings, credential: Credential) -> list[Finding]:
    timeout = settings.server.timeout
    async with Server(
        settings.server.base_url,
        credential.key,
        key_source=credential.source,
        timeout=timeout,
        retry=RetryPolicy(attempts=3, connects=2, seconds=timeout),
    ) as server:
        found = [await _clock(settings)]
        try:
            viewer = await server.viewer()
        except AuthError as error:
            return [*found, fail("server", str(error), "`mirror login` stores another key")]
        except CommError as error:
            return [*found, fail("server", str(error), "check the network, and server.base_url in the config")]
        name, entity = viewer.get("username"), viewer.get("entity")
        found.append(ok("server", f"{server.base_url} answers, and knows the key as {name} (entity {entity})"))
        return found + [finding async for finding in _projects(server, settings)]


async def _clock(settings: Settings) -> Finding:
    """This machine's clock against the server's, whose Date header has whole seconds; no key is sent."""
    base_url = settings.server.base_url
    try:
        async with httpx.AsyncClient(timeout=settings.server.timeout) as client:
            before = time.time()
            # Its head alone: a body may have no end.
            async with asyncio.timeout(2 * settings.server.timeout), client.stream("GET", base_url) as answer:
                after = time.time()
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        return fail("clock", f"{base_url} does not answer ({reason})", "check the network, and server.base_url")
    told = email.utils.parsedate_tz(answer.headers.get("date", ""))
    if told is None:
        return ok("clock", f"{base_url} does not tell the time")
    ahead = (before + after) / 2 - (email.utils.mktime_tz(told) + 0.5)
    if abs(ahead) <= SKEW_SECONDS:
        return ok("clock", f"agrees with the server's within {max(1.0, abs(ahead)):.0f} s")
    side = "ahead of" if ahead > 0 else "behind"
    return warn(
        "clock",
        f"is {abs(ahead):,.0f} s {side} the server's",
        "set it (NTP); nothing is lost by it, but lag and retries are told wrong",
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
                    yield ok("projects", f"{path} stands for {len(names):,} now")
                else:
                    yield warn("projects", f"no project fits {path}", "check the spelling; new ones are picked up")
                continue
            project = ProjectKey(pattern.entity, pattern.project)
            total = await _count(server, project, settings)
        except NotFound:
            yield fail(
                "projects", f"{path} is not on {server.base_url}, or the key may not read it", "check the spelling"
            )
        except CommError as error:
            yield fail("projects", f"{path}: {error}", "`mirror -v sync` tells more")
        else:
            readable.append(project)
            yield ok("projects", f"{path} can be read: {total:,} {'run' if total == 1 else 'runs'} in scope")
    if len(settings.projects) > MOST_PROJECTS:
        yield ok("projects", f"{len(settings.projects) - MOST_PROJECTS} more were not asked for")
    if readable:
        yield await _features(server, readable[0])


async def _count(server: Server, project: ProjectKey, settings: Settings) -> int:
    pages = runs.heads(server, project, scope=settings.sync.filters, filters=_NOBODY)
    return max([page.total async for page in pages], default=0)


async def _features(server: Server, project: ProjectKey) -> Finding:
    """Ask as a pass asks, for a run that is not there: a server that lacks something refuses the question itself."""
    try:
        try:
            since = {"updatedAt": {"$gte": "2999-01-01T00:00:00Z"}}
            async for _ in runs.heads(server, project, scope={}, filters=since):
                pass
        except FeatureMissing:
            server.missing_features.add("updatedAt filter")
        async for _ in runs.records(server, project, scope={}, filters=_NOBODY, size=runs.PageSize(1)):
            pass
        await parquet_history.find(server, project, [_NOBODY["name"]])
        await console.fetch(server, project, [console.Place(_NOBODY["name"])])
    except CommError as error:
        return warn("features", f"the server was asked what it can do, and failed: {error}", "try again later")
    if not server.missing_features:
        return ok("features", "the server has everything that can be used")
    lacking = "; ".join(f"no {name}: {_USES.get(name, 'done another way')}" for name in sorted(server.missing_features))
    return ok("features", f"the server is older or smaller: {lacking}")
