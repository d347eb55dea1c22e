"""Readers of single settings: each accepts a value of TOML or the environment and returns a checked value."""

from __future__ import annotations

import grp
import os
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from mirror.addresses import FORGE_HOSTS, path_of
from mirror.errors import FilterError

DEFAULT_BASE_URL = "https://api.wandb.ai"
STORAGE_VERSIONS = ("v1.2.0", "v1.3.0", "v1.4.0", "v1.5.0")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SCALES = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}
LAKE_SCHEMES = ("s3", "gs", "az")
LEAST_KEPT = 3600.0
_LONGEST = 3650 * 86400.0
_NAME = r"[^/\\#?%:*\[\s][^/\\#?%:*\[\x00-\x1f]{0,127}"
_PART = r"[^/\\#?%:\s][^/\\#?%:\x00-\x1f]{0,127}"
_GLOB = r"[^/\\#%:\s][^/\\#%:\x00-\x1f]{0,127}"


class Impossible(ValueError):
    """A value is not valid; the message continues the name of its key, as in "must be ..."."""


def seconds(value: object) -> float:
    """Read a duration such as "500ms", "30s", "5m", "6h", "1d" or "2w"."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)(ms|s|m|h|d|w)", value) if isinstance(value, str) else None
    if not match:
        raise Impossible(f'must be a duration such as "30s", "5m", "6h" or "500ms", not {shown(value)}')
    result = float(match[1]) * _UNITS[match[2]]
    if result > _LONGEST:
        raise Impossible(f"must be at most 3650 days, not {shown(value)}")
    return result


def interval(value: object) -> float:
    """Read a duration greater than zero."""
    result = seconds(value)
    if not result:
        raise Impossible(f"must be greater than zero, not {shown(value)}")
    return result


def moment_before(value: str, now: datetime) -> datetime:
    """Read "30d" as that long before `now`, or an ISO day or time; all naive UTC. It must be before `now`."""
    if re.match(r"\d{4}-", value):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            raise Impossible(f'must be a time such as "2026-10-01" or "2026-10-01T12:00", not {shown(value)}') from None
        found = found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
        if found >= now:
            raise Impossible(f"must be in the past, not {shown(value)}")
        return found
    try:
        return now - timedelta(seconds=interval(value))
    except Impossible:
        raise Impossible(
            f'must be a duration such as "12h", "30d" or "4w", or a day such as "2026-10-01", not {shown(value)}'
        ) from None


def count(value: object) -> int:
    """Read a positive whole number, also written as "100k" or "10M"."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)([kMG]?)", str(value)) if type(value) in (int, str) else None
    result = float(match[1]) * _SCALES[match[2]] if match else 0.0
    if result < 1 or result != int(result):
        raise Impossible(f'must be a positive count such as 8, "100k" or "10M", not {shown(value)}')
    return int(result)


def size(value: object) -> int:
    """Read a number of bytes such as "500MB" or "1.5GB"; "" means no limit and returns 0."""
    if value == "":
        return 0
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?(kB|MB|GB|TB)", value) if isinstance(value, str) else None
    result = int(float(match[1]) * _BYTES[match[2]]) if match else 0
    if not result:
        raise Impossible(f'must be a size such as "500MB" or "1GB", or "" for no limit, not {shown(value)}')
    return result


class FileChoice(Struct, frozen=True):
    """What to mirror of the files of runs: their lists, and the content of those whose name matches a glob."""

    listed: bool = False
    globs: tuple[str, ...] = ()


def files(value: object) -> FileChoice:
    """Read false, "list" (or true), "content", or a list of globs of the names whose content is wanted, too."""
    if isinstance(value, bool):
        return FileChoice(listed=value)
    if value in ("list", "content"):
        return FileChoice(listed=True, globs=("*",) if value == "content" else ())
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise Impossible(
            f'must be false, "list", "content", or a list of globs such as ["*.json", "media/**"], not {shown(value)}'
        )
    return FileChoice(listed=True, globs=tuple(dict.fromkeys(value)))


class ArtifactPattern(Struct, frozen=True):
    """Versions of artifacts, as globs of their type, their collection, and their aliases or version."""

    type: str
    collection: str
    alias: str

    def __str__(self) -> str:
        """Return it as in the config."""
        return f"{self.type}:{self.alias}" if self.collection == "*" else f"{self.type}/{self.collection}:{self.alias}"


class ArtifactChoice(Struct, frozen=True):
    """What to mirror of artifacts: their lists, and the content of versions that match a pattern."""

    listed: bool = False
    patterns: tuple[ArtifactPattern, ...] = ()


def artifacts(value: object) -> ArtifactChoice:
    """Read false, "list" (or true), "content", or a list of patterns of the artifacts whose content is wanted, too."""
    if isinstance(value, bool):
        return ArtifactChoice(listed=value)
    if value in ("list", "content"):
        return ArtifactChoice(listed=True, patterns=(ArtifactPattern("*", "*", "*"),) if value == "content" else ())
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise Impossible(
            'must be false, "list", "content", or a list of patterns such as ["model:*", "dataset/mnist:latest"], '
            f"not {shown(value)}"
        )
    return ArtifactChoice(listed=True, patterns=tuple(dict.fromkeys(_artifact_pattern(item) for item in value)))


def _artifact_pattern(text: str) -> ArtifactPattern:
    """Read "TYPE:ALIAS" or "TYPE/NAME:ALIAS", each part a glob; an alias may be a version such as v3."""
    match = re.fullmatch(r"([^/:]+)(?:/([^/:]+))?:([^/:]+)", text)
    if match is None:
        hint = f'write "{text}:*" for all versions' if text and not set("/:") & set(text) else "each part may be a glob"
        raise Impossible(f'must contain patterns "TYPE:ALIAS" or "TYPE/NAME:ALIAS", not {shown(text)}; {hint}')
    return ArtifactPattern(match[1], match[2] or "*", match[3])


def base_url(value: object) -> str:
    """Read the address of a W&B server, normalised as in the official client; it must not contain credentials."""
    url = _text(value).rstrip("/")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise Impossible(f"must be an address such as {DEFAULT_BASE_URL}, not {shown(value)}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
        raise Impossible(f"must be an address such as {DEFAULT_BASE_URL}, not {shown(value)}")
    if parts.username or parts.password:
        raise Impossible("must not contain a key; run `mirror login` or set WANDB_API_KEY")
    if parts.query or parts.fragment:
        raise Impossible(f"must end with its path, not {shown(value)}")
    if re.fullmatch(r"(.*\.)?wandb\.ai", parts.hostname) and (parts.scheme, "api." in parts.hostname) != (
        "https",
        True,
    ):
        raise Impossible(f"is not the address of the API: did you mean {DEFAULT_BASE_URL}?")
    if parts.hostname in FORGE_HOSTS:
        if (parts.scheme, parts.port, parts.path) != ("https", None, "/api/wandb"):
            raise Impossible(f"is not the address of the API: did you mean https://api.{parts.hostname}?")
        return f"https://api.{parts.hostname}"
    return url


def listen(value: object) -> str:
    """Read "host:port", or "" for not listening; port 0 chooses a free one."""
    text = _text(value)
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})", text)
    if text and (not match or int(match[2]) > 65535):
        raise Impossible(f'must be an address such as "127.0.0.1:8642", or "" to turn it off, not {shown(value)}')
    return text


def is_loopback(address: str) -> bool:
    """Return True if only this machine reaches "host:port"."""
    import ipaddress

    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def file(value: object) -> str:
    """Read the full path of a file, or "" for none."""
    text = _text(value)
    if text and not re.match(r"/|~[^/\x00]*/", text):
        raise Impossible(f"must be a full path, from / or ~, not {shown(value)}")
    return text


def writes(value: object) -> str:
    """Read what to do with writes that the official client sends to the mirror."""
    if value not in ("pass", "refuse"):
        raise Impossible(f'must be "pass" or "refuse", not {shown(value)}')
    return str(value)


def storage_version(value: object) -> str:
    """Read the oldest DuckDB version that must be able to open the published file."""
    if value not in STORAGE_VERSIONS:
        raise Impossible(f"must be one of {', '.join(STORAGE_VERSIONS)}, not {shown(value)}")
    return str(value)


def mode(value: object) -> int:
    """Read the permissions of what is published, as chmod takes them. Returns 0 for an empty text."""
    if value == "":
        return 0
    if not isinstance(value, str) or not re.fullmatch("0?[46][04][04]", value):
        raise Impossible(f'must be "0640" (a group reads), "0644" (everyone reads) or the like, not {shown(value)}')
    return int(value, 8)


def group(value: object) -> int | None:
    """Read a group of this machine that the user belongs to. Returns its number; None for an empty text."""
    if value == "":
        return None
    try:
        number = grp.getgrnam(_text(value)).gr_gid
    except KeyError:
        raise Impossible(f"there is no group {shown(value)} on this machine") from None
    if os.getuid() and number not in (os.getgid(), *os.getgroups()):
        raise Impossible(f"you are not in the group {shown(value)}, so files cannot be given to it")
    return number


def globs(value: object) -> tuple[str, ...]:
    """Read a list of key globs."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise Impossible(f'must be a list of key globs such as ["loss", "val/*"], not {shown(value)}')
    return tuple(value)


def filters(value: object) -> dict[str, Any]:
    """Read a run filter; `mirror.filters` checks it."""
    if not isinstance(value, dict):
        raise Impossible(f'must be a table such as {{state = "finished"}}, not {shown(value)}')
    if value:
        from mirror.filters import compile as compile_filter

        try:
            compile_filter(value)
        except FilterError as error:
            raise Impossible(f"is not a valid filter: {error}") from None
        from mirror.filters.moments import now_utc, resolved

        if resolved(value, now_utc()) != value:
            raise Impossible('must not contain a time relative to now, such as "7d": the server reads it; write a day')
    return value


def folders(value: object) -> tuple[str, ...]:
    """Read a list of folders, each with a path from / or ~."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Impossible(f'must be a list of folders such as ["~/train/wandb"], not {shown(value)}')
    for item in value:
        if not re.match(r"/|~[^/\x00]*(/|$)", item) or "\x00" in item:
            raise Impossible(f"must contain full paths, from / or ~, not {shown(item)}")
    return tuple(value)


def lake_address(value: object) -> str:
    """Read the folder or the address of a lake. No address has a key in it: it would be shown and logged."""
    text = _text(value)
    if "\x00" in text or (text and not text.strip()):
        raise Impossible(f"must be a folder, s3://, gs:// or az://, not {shown(value)}")
    if "://" not in text:
        if "%" in text:
            raise Impossible(f"must have no % in its path, which readers of Delta tables decode: {text}")
        return text
    address = urlsplit(text)
    if address.scheme not in LAKE_SCHEMES:
        raise Impossible(f"must be a folder, s3://, gs:// or az://, not {address.scheme}://")
    if "@" in address.netloc:
        raise Impossible("must have no key in the address: it is read from the environment, see docs/scale.md")
    if address.query or address.fragment:
        raise Impossible(
            f"must have no ? and # in the address {text.partition('?')[0]}: settings are read from the environment"
        )
    if not address.netloc or not address.path.strip("/"):
        raise Impossible(f"must be {address.scheme}://bucket/prefix, not {shown(value)}")
    return f"{address.scheme}://{address.netloc}/{address.path.strip('/')}"


def lake_url(value: object) -> str:
    """Read the address of the daemon's lake, or "" for none; a folder has a path from / or ~."""
    text = lake_address(value)
    if text and "://" not in text and not re.match(r"/|~[^/]*(/|$)", text):
        raise Impossible(f"must be a full path, from / or ~, or an address, not {shown(value)}")
    return text


def kept(value: object) -> float:
    """Read how long old versions of a lake stay: at least an hour, so that readers can finish."""
    result = seconds(value)
    if result < LEAST_KEPT:
        raise Impossible(f'must be at least "1h", so that readers can finish, not {shown(value)}')
    return result


def entity(value: object) -> str:
    """Read the name of an entity, or "" for none."""
    text = _text(value)
    if text and not re.fullmatch(_NAME, text):
        raise Impossible(f"must be the name of a user or team, not {shown(value)}")
    return text


def switch(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise Impossible(f"must be true or false, not {shown(value)}")
    return value


def project_pattern(text: object, entity: str | None = None) -> str:
    """Read "entity/project", where the project may be a glob, or a name that contains `*` or `[`.

    A project without an entity gets `entity`.
    """
    given = _text(text)
    full = f"{entity}/{given}" if entity and "/" not in given else given
    if re.fullmatch(rf"{_NAME}/{_GLOB}", full):
        return full
    if "/" not in given and not entity and re.fullmatch(_GLOB, given):
        raise Impossible(f'needs an entity: use "entity/{given}" or set WANDB_ENTITY')
    raise Impossible(f'must be "entity/project" or "entity/*", not {shown(text)}')


def path(text: object, entity: str | None = None) -> str:
    """Read a project pattern, or a run as "entity/project/run_id" or as the address of its page."""
    text = path_of(_text(text))
    if match := re.fullmatch(rf"({_NAME}/{_PART})/(?:runs/)?({_PART})", text.strip("/")):
        return f"{match[1]}/{match[2]}"
    try:
        return project_pattern(text, entity)
    except Impossible as error:
        reason = str(error).replace('"entity/*"', '"entity/*" or "entity/project/run_id"')
        raise Impossible(reason) from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Impossible(f"must be a text, not {shown(value)}")
    return value


def shown(value: object) -> str:
    """Return a value as TOML, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    text = quoted(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def quoted(text: str) -> str:
    """Return a text as a TOML string."""
    import json

    return json.dumps(text, ensure_ascii=False)
