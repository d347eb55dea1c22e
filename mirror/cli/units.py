"""The files of the background service: a systemd user unit and a launchd property list."""

from __future__ import annotations

import plistlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.parsers.expat import ExpatError

from msgspec import Struct

from mirror.errors import UsageError

WATCHDOG_SECONDS = 600
"""Seconds that the event loop or the writer may hang; rewriting or merging large files keeps the writer for minutes."""

CARRIED = (
    "MIRROR_HOME",
    "MIRROR_CONFIG",
    "WANDB_BASE_URL",
    "WANDB_APP_URL",
    "WANDB_ENTITY",
    "WANDB_CONFIG_DIR",
    "NETRC",
    "XDG_DATA_HOME",
    "XDG_CONFIG_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
)
"""Variables that are copied into the service: everything that selects the same mirror and server, but not the key."""

_NAMESPACES = (
    "# These need user namespaces: systemd 254 and newer apply them where the kernel allows it, older ones do not."
)

_SYSTEM = (
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "PrivateDevices=yes",
    "CapabilityBoundingSet=",
    "DevicePolicy=closed",
)
"""Restrictions that only the system's systemd can apply everywhere."""

_PATHS = {"MIRROR_HOME", "MIRROR_CONFIG", "WANDB_CONFIG_DIR", "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR"}


class Service(Struct, frozen=True):
    """What the service files are made from."""

    name: str
    command: Sequence[str]
    data: Path
    environment: Mapping[str, str]
    user: str | None = None
    """The account that a system unit runs as; None for a user's own service."""


def carried(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of the environment that the service gets; paths are made absolute.

    Raises UsageError for a value that a service file cannot hold.
    """
    found: dict[str, str] = {}
    for name in CARRIED:
        if value := environ.get(name):
            found[name] = str(Path(value).expanduser().absolute()) if name in _PATHS else value
            if not found[name].isprintable():
                raise UsageError(f"{name} contains a control character, which a service file cannot hold")
    return found


def holds_password(value: str) -> bool:
    """Return whether the address of a proxy contains a password."""
    from urllib.parse import urlsplit

    return "@" in urlsplit(value if "://" in value else f"//{value}").netloc


def mark(data: Path) -> str:
    """Return the line that identifies the service of a home."""
    return f"# Keeps the mirror in {data} up to date; written by `mirror service install`."


def systemd(service: Service) -> str:
    """Return a unit: a user's own, with only the settings that a user's systemd can apply, or a system unit.

    It also restarts when the config is invalid or a `mirror sync` holds the home, since both are temporary; not when
    the server refuses the key (exit code 3), which must not be tried again and again.
    """
    system = [f"User={service.user}", *_SYSTEM] if service.user is not None else []
    temporary = any(service.data.is_relative_to(folder) for folder in ("/tmp", "/var/tmp"))  # noqa: S108
    lines = [
        mark(service.data),
        "[Unit]",
        "Description=wandb-mirror: keeps a local mirror of Weights & Biases projects up to date",
        "StartLimitIntervalSec=0",
        *(["Wants=network-online.target", "After=network-online.target"] if system else []),
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(_argument(word) for word in service.command)}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in service.environment.items()),
        "Restart=on-failure",
        "RestartSec=30",
        "RestartPreventExitStatus=3",
        "# When the kernel kills a SQL statement of the page for its memory use, the daemon must keep running.",
        "OOMPolicy=continue",
        "# Starting may rewrite large files, stopping publishes what was committed.",
        "TimeoutStartSec=15min",
        "TimeoutStopSec=5min",
        f"WatchdogSec={WATCHDOG_SECONDS}",
        "UMask=0077",
        "NoNewPrivileges=yes",
        "LockPersonality=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "RestrictNamespaces=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
        *([] if system else [_NAMESPACES]),
        "ProtectSystem=strict",
        f"ReadWritePaths={_quoted(str(service.data))}",
        f"PrivateTmp={'no' if temporary else 'yes'}",
        "ProtectControlGroups=yes",
        "ProtectKernelTunables=yes",
        *system,
        "",
        "[Install]",
        f"WantedBy={'multi-user' if system else 'default'}.target",
        "",
    ]
    return "\n".join(lines)


def launchd(service: Service) -> bytes:
    """Return a property list for a launch agent: started at login, restarted 30 seconds after a failure."""
    return plistlib.dumps(
        {
            "Label": service.name,
            "ProgramArguments": list(service.command),
            "EnvironmentVariables": dict(service.environment),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 30,
            "ExitTimeOut": 300,
            "Umask": 0o077,
            "ProcessType": "Background",
            "WorkingDirectory": str(service.data),
        },
        sort_keys=False,
    )


def launchd_folder(content: bytes) -> str | None:
    """Return the home that a property list was written for; None if it was not written by `mirror service`."""
    try:
        found = plistlib.loads(content)
    except (plistlib.InvalidFileException, ValueError, ExpatError):
        return None
    return str(found["WorkingDirectory"]) if isinstance(found, dict) and "WorkingDirectory" in found else None


def _argument(word: str) -> str:
    """Quote a word of a command line as `_quoted` does; a dollar sign does not start a variable."""
    return _quoted(word.replace("$", "$$"))


def _quoted(text: str) -> str:
    """Quote a text for systemd; a percent sign does not start a specifier."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
