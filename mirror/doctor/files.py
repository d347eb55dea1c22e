"""Checks of the files in the home: permissions, whether they can be read, and free disk space."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from mirror.control import Control
from mirror.doctor import contents, segments
from mirror.doctor.findings import Finding, fail, ok, warn
from mirror.errors import PUBLISH_AGAIN, MirrorError, StoreError
from mirror.settings.home import Home
from mirror.settings.settings import Settings
from mirror.snapshot.connection import opened
from mirror.snapshot.projects import storage_version
from mirror.store import aside, integrity
from mirror.store.sharing import Sharing
from mirror.sync.session import sharing

SPARE_BYTES = 1_000_000_000
"""Less free space than this is reported."""


def check(home: Home, settings: Settings) -> Iterator[Finding]:
    """Check permissions, state, published file, a stray log beside it, segments, and free disk space."""
    if not home.data.is_dir():
        yield ok("home", f"{home.data} does not exist yet; the first sync creates it")
        return
    yield _home(home)
    yield from _permissions(home)
    if (wanted := sharing(settings)) is not None:
        yield _shared(home, wanted)
    yield from _databases(home, settings)
    yield from segments.check(home)
    yield from contents.check(home)
    yield from _aside(home)
    yield _space(home)


def _home(home: Home) -> Finding:
    if not os.access(home.data, os.W_OK | os.X_OK):
        return fail("home", f"{home.data} cannot be written", "check who owns it, and that its disk is not read-only")
    status = home.data.stat()
    if status.st_uid != os.getuid():
        return warn("home", f"{home.data} belongs to another user (uid {status.st_uid})", "use a home of your own")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return fail("home", f"{home.data} is writable by other users ({_mode(status)})", f"`chmod go-w {home.data}`")
    return ok("home", f"{home.data} ({_mode(status)})")


def _permissions(home: Home) -> Iterator[Finding]:
    """Check that private files are accessible to their owner only, and that the published file is read-only."""
    good = []
    own = (home.state, home.socket, home.log, home.web_token, home.tokens)
    for path, wanted in (*((path, 0o600) for path in own), (home.published, 0o444)):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        excess = stat.S_IMODE(status.st_mode) & ~wanted
        advice = f"`chmod {wanted:o} {path}`"
        if excess & (stat.S_IRWXG | stat.S_IRWXO):
            yield fail("permissions", f"{path} is accessible to other users ({_mode(status)})", advice)
        elif excess:
            yield warn("permissions", f"{path} is writable, so clients may damage it ({_mode(status)})", advice)
        else:
            good.append(path.name)
    if good:
        yield ok("permissions", f"{', '.join(good)} have the right permissions")


def _shared(home: Home, wanted: Sharing) -> Finding:
    """Check that those who may read the mirror by `publish.mode` reach the published file, segments and contents."""
    paths = [path for path in (home.published, *home.history.rglob("*.parquet")) if path.exists()]
    paths += home.blobs.glob("??/*")
    wrong = [path for path in paths if _differs(path, wanted)]
    if wrong:
        return fail("sharing", f"{len(wrong)} files, such as {wrong[0]}, do not have publish.mode", "run `mirror sync`")
    if closed := [folder for folder in (home.data, *home.data.parents) if not _passable(folder, wanted)]:
        return fail(
            "sharing",
            f"those who may read {home.published} by publish.mode cannot pass through {closed[-1]}",
            f"`chmod go+x {closed[-1]}`, or move the mirror to a folder that they reach (MIRROR_HOME)",
        )
    return ok("sharing", f"{home.published} and its segments can be read as publish.mode says")


def _differs(path: Path, wanted: Sharing) -> bool:
    status = path.stat()
    return stat.S_IMODE(status.st_mode) != wanted.file_mode or (wanted.group not in (None, status.st_gid))


def _passable(folder: Path, wanted: Sharing) -> bool:
    """Return True if everyone who may read the files may pass through this folder above them."""
    status = folder.stat()
    by_group = not wanted.mode & 0o004 and status.st_gid == wanted.group
    return bool(status.st_mode & (0o010 if by_group else 0o001))


def _databases(home: Home, settings: Settings) -> Iterator[Finding]:
    """Check both databases; if a daemon has the state open, the daemon checks it, since nobody else can read it."""
    try:
        control = Control.find(home.socket)
        by_daemon = control.check() if control is not None else None
    except MirrorError as error:
        yield warn("state", f"not checked: {error}", "restart the daemon")
        found = integrity.problems(home, state=False)
    else:
        found = integrity.problems(home, state=control is None)
        yield from _state(home, found, by_daemon, asked=control is not None)
    yield from _published(home, settings, found.published)


def _state(home: Home, found: integrity.Problems, by_daemon: str | None, *, asked: bool) -> Iterator[Finding]:
    if found.busy is not None:
        yield warn("state", f"not checked: {found.busy}", "try again when it has ended")
    elif problem := by_daemon or found.state:
        advice = 'see docs/operations.md, "When something is damaged"; `mirror sync` repairs what it can'
        yield fail("state", problem, advice)
    elif home.state.exists():
        by = " (checked by the daemon, which has it open)" if asked else ""
        yield ok("state", f"all of {home.state} can be read{by}")


def _aside(home: Home) -> Iterator[Finding]:
    folder = aside.folder(home.data)
    kept = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    if kept:
        text = f"{len(kept):,} damaged {'file was' if len(kept) == 1 else 'files were'} moved to {folder}"
        yield warn("aside", f"{text}, {sum(kept) / 1e6:,.1f} MB", "delete them once nothing in them is needed")


def _published(home: Home, settings: Settings, problem: str | None) -> Iterator[Finding]:
    if not home.published.exists():
        yield warn("mirror", "nothing is published yet", "`mirror sync` pulls and publishes")
        return
    log = home.published.with_name(f"{home.published.name}.wal")
    if log.exists():
        yield warn(
            "mirror",
            f"{log} was left by a client that opened the published file for writing",
            "open it with -readonly (read_only=True); the next publication removes it",
        )
    if problem is None:
        try:
            with opened(home.published) as connection:
                runs = connection.execute("select count(*) from runs").fetchall()[0][0]
                written = storage_version(connection) or "unknown"
        except StoreError as error:
            problem = str(error)
    if problem is not None:
        yield fail("mirror", problem.removesuffix(f"; {PUBLISH_AGAIN}"), PUBLISH_AGAIN)
        return
    wanted = settings.publish.storage_version
    count = f"{runs:,} {'run' if runs == 1 else 'runs'}"
    text = f"{home.published} opens, has {count}, and is in the format of DuckDB {written}"
    if written == wanted:
        yield ok("mirror", text)
    else:
        yield warn("mirror", f"{text}; the config asks for {wanted}", "the next start of a daemon or sync rewrites it")


def _space(home: Home) -> Finding:
    """Check free disk space: publishing needs the size of the state file, and rewriting it needs that again."""
    size = _size(home.state)
    free = shutil.disk_usage(home.data).free
    text = f"{free / 1e9:,.1f} GB free on the disk of {home.data}, state file {size / 1e6:,.1f} MB"
    advice = "free some space, or move MIRROR_HOME to a larger disk"
    if free < size + 50_000_000:
        return fail("disk", f"{text}: too little to publish", advice)
    if free < max(3 * size, SPARE_BYTES):
        return warn("disk", text, advice)
    return ok("disk", text)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
