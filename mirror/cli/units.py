"""The texts of the background service: a systemd user unit, and a launchd property list."""

from __future__ import annotations

import plistlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.parsers.expat import ExpatError

from mirror.errors import UsageError

WATCHDOG_SECONDS = 600
"""How long loop or writer may hang. The writer is busy for minutes at most when it rewrites or merges large files."""

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
"""What of the environment the service is given: everything that leads it to the same mirror and server, no key."""

_PATHS = {"MIRROR_HOME", "MIRROR_CONFIG", "WANDB_CONFIG_DIR", "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR"}


@dataclass(frozen=True)
class Service:
    """A daemon that is to run in the background."""

    name: str
    command: Sequence[str]
    data: Path
    environment: Mapping[str, str]


def carried(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the environment that the service is given; paths are made absolute.

    Raises UsageError for a value that cannot stand in a unit.
    """
    found: dict[str, str] = {}
    for name in CARRIED:
        if value := environ.get(name):
            found[name] = str(Path(value).expanduser().absolute()) if name in _PATHS else value
            if not found[name].isprintable():
                raise UsageError(f"{name} holds a control character, which no service can be given")
    return found


def holds_password(value: str) -> bool:
    """Whether the address of a proxy has a password in it."""
    from urllib.parse import urlsplit

    return "@" in urlsplit(value if "://" in value else f"//{value}").netloc


def mark(data: Path) -> str:
    """The line by which the service of a home is known."""
    return f"# Keeps the mirror in {data} up to date; written by `mirror service install`."


def systemd(service: Service) -> str:
    """A user unit. Only what a user's own manager can apply stands in it.

    Restarts also when the config is wrong or the home is held by a `mirror sync`, since both pass; not when the server
    refuses the key (exit code 3), which must not be tried again and again.
    """
    temporary = any(service.data.is_relative_to(folder) for folder in ("/tmp", "/var/tmp"))  # noqa: S108
    lines = [
        mark(service.data),
        "[Unit]",
        "Description=wandb-mirror: keeps a local mirror of Weights & Biases projects up to date",
        "StartLimitIntervalSec=0",
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
        "# A statement of the page that the kernel ends for its memory is not the end of the daemon.",
        "OOMPolicy=continue",
        "# Opening may rewrite large files, ending publishes what was committed.",
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
        "# These need user namespaces: systemd 254 and newer apply them where the kernel allows it, older ones do not.",
        "ProtectSystem=strict",
        f"ReadWritePaths={_quoted(str(service.data))}",
        f"PrivateTmp={'no' if temporary else 'yes'}",
        "ProtectControlGroups=yes",
        "ProtectKernelTunables=yes",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    return "\n".join(lines)


def launchd(service: Service) -> bytes:
    """A property list for a launch agent: started at login, and again half a minute after a failure."""
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
    """The home that a property list was written for; None for one that is not ours."""
    try:
        found = plistlib.loads(content)
    except (plistlib.InvalidFileException, ValueError, ExpatError):
        return None
    return str(found["WorkingDirectory"]) if isinstance(found, dict) and "WorkingDirectory" in found else None


def _argument(word: str) -> str:
    """A word of a command line: as _quoted, and a dollar sign begins no variable."""
    return _quoted(word.replace("$", "$$"))


def _quoted(text: str) -> str:
    """A text in quotes, as systemd reads it; a percent sign begins no specifier."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
