"""`mirror service`: runs the daemon in the background, with systemd on Linux and launchd on macOS."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from mirror.cli import units
from mirror.cli.guide import Panels
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, leave, say, warn
from mirror.errors import AuthError, MirrorError, UsageError, one_line

service = typer.Typer(
    cls=Panels,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Run the daemon in the background: as a systemd user service, or a launchd agent on macOS.",
)

NAME = "wandb-mirror"

Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the service; one for each home.")]


@service.command()
def install(
    context: typer.Context,
    name: Name = NAME,
    show: Annotated[bool, typer.Option("--print", help="Print what would be written; change nothing.")] = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Also start it now.")] = True,
    system: Annotated[
        bool, typer.Option("--system", help="With --print: a unit for the whole machine, run as --user.")
    ] = False,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="The account of a system unit (default: yours).")
    ] = None,
) -> None:
    """Install the service, enable it for each login, and start it.

    It gets this command's MIRROR_HOME and config, and the server's address if the environment sets one. It does not
    contain the key: the daemon reads it from netrc, where `mirror login` stores it. A system unit, which starts with
    the machine and needs no login, is printed for its administrator: --system --print.
    """
    from mirror.cli.output import replaced, write_text

    given = invocation(context)
    manager = _manager(name)
    account = _account(system=system, user=user, show=show)
    text = manager.text(_service(given, name, account))
    if show:
        write_text(text)
        if problem := _check_key(given):
            warn(problem)
        return
    if not (given.settings().projects or given.settings().local.dirs):
        raise UsageError(f"{given.home.config} names no projects: run `mirror init` first")
    if problem := _check_key(given):
        raise AuthError(problem)
    manager.check()
    if manager.path.exists() and not manager.serves(given.home.data):
        raise UsageError(f"{manager.path} is the service of another home; choose another name with --name")
    given.home.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    manager.path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(manager.path) as scratch:
        scratch.write_text(text, encoding="utf-8")
    say(f"wrote {manager.path}")
    manager.enable(start=start)


@service.command()
def uninstall(context: typer.Context, name: Name = NAME) -> None:
    """Stop the service and remove it. The mirror stays as it is."""
    given = invocation(context)
    manager = _manager(name)
    if not manager.path.exists():
        say(f"no service {name} is installed ({manager.path} does not exist)")
        return
    manager.disable()
    manager.path.unlink(missing_ok=True)
    manager.forget()
    say(f"removed {manager.path}; the mirror in {given.home.data} stays")


@service.command()
def status(context: typer.Context, name: Name = NAME) -> None:
    """Show whether the service is installed and running; exit code 1 if it is not."""
    invocation(context)
    manager = _manager(name)
    if not manager.path.exists():
        say(f"no service {name} is installed; `mirror service install` installs it")
        leave(ExitCode.FAILED)
    running, text = manager.state()
    say(f"{manager.path}: {text}")
    if not running:
        leave(ExitCode.FAILED)


class Systemd:
    """The user's own systemd."""

    def __init__(self, name: str) -> None:
        self._unit = f"{name}.service"
        folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        self.path = Path(folder).expanduser() / "systemd" / "user" / self._unit

    def text(self, service: units.Service) -> str:
        """Return the text of the unit."""
        return units.systemd(service)

    def serves(self, data: Path) -> bool:
        """Return whether the installed unit was written for this home."""
        return units.mark(data) in self.path.read_text(encoding="utf-8", errors="replace").splitlines()

    def check(self) -> None:
        """Raise MirrorError if no systemd runs for this user."""
        hint = (
            "run `mirror daemon` with the service manager of this machine (in a container: as its command), "
            "or see `mirror service install --print`"
        )
        if shutil.which("systemctl") is None:
            raise MirrorError(f"there is no systemd on this machine; {hint}")
        done = _run("systemctl", "--user", "show-environment")
        if done.returncode:
            raise MirrorError(f"no systemd runs for this user ({_reason(done)}); {hint}")

    def enable(self, *, start: bool) -> None:
        """Enable it for each login; with `start`, also start it now."""
        self._must("daemon-reload")
        self._must("enable", self._unit)
        if not start:
            say(f"it starts at your next login; to start it now: `systemctl --user start {self._unit}`")
            return
        # A restart also applies a new unit to a running service.
        done = self._call("restart", self._unit)
        if done.returncode:
            raise MirrorError(
                f"{self._unit} does not start ({_reason(done)}); "
                f"see `journalctl --user -u {self._unit}` and mirror.log for the reason"
            )
        say(f"{self._unit} is running; `mirror status` shows its state, `journalctl --user -u {self._unit}` its log")
        if not self._lingers():
            say("it ends when you log out; `loginctl enable-linger` keeps it running, and starts it at boot")

    def disable(self) -> None:
        """Stop it and disable it."""
        done = self._call("disable", "--now", self._unit)
        if done.returncode:
            warn(f"systemd did not stop {self._unit} ({_reason(done)})")

    def forget(self) -> None:
        """Make systemd notice that the unit is gone; without systemctl there is nothing to do."""
        if shutil.which("systemctl") is not None:
            self._call("daemon-reload")
            self._call("reset-failed", self._unit)

    def state(self) -> tuple[bool, str]:
        """Return whether it is running, and a text that describes its state."""
        self.check()
        fields = ("ActiveState", "SubState", "MainPID", "UnitFileState", "StatusText", "Result", "NRestarts")
        done = self._must("show", self._unit, *(f"--property={field}" for field in fields))
        found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        running = found.get("ActiveState") == "active"
        parts = [f"{found.get('ActiveState')} ({found.get('SubState')})", found.get("UnitFileState", "")]
        if running:
            parts += [f"pid {found.get('MainPID')}", found.get("StatusText", "")]
        elif found.get("Result") not in (None, "success"):
            parts.append(f"{found['Result']}; see `journalctl --user -u {self._unit}` for the reason")
        if (restarts := found.get("NRestarts", "0")) not in ("", "0"):
            parts.append(f"restarted {restarts} times")
        return running, ", ".join(part for part in parts if part)

    @staticmethod
    def _lingers() -> bool:
        if shutil.which("loginctl") is None:
            return True
        done = _run("loginctl", "show-user", str(os.getuid()), "--property=Linger")
        return done.stdout.strip() != "Linger=no"

    @staticmethod
    def _call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return _run("systemctl", "--user", *arguments)

    def _must(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = self._call(*arguments)
        if done.returncode:
            raise MirrorError(f"`systemctl --user {arguments[0]}` failed: {_reason(done)}")
        return done


class Launchd:
    """launchd on macOS."""

    def __init__(self, name: str) -> None:
        self._label = name
        self._domain = f"gui/{os.getuid()}"
        self.path = Path("~/Library/LaunchAgents").expanduser() / f"{name}.plist"

    def text(self, service: units.Service) -> str:
        """Return the text of the property list."""
        return units.launchd(service).decode()

    def serves(self, data: Path) -> bool:
        """Return whether the installed property list was written for this home."""
        return units.launchd_folder(self.path.read_bytes()) == str(data)

    def check(self) -> None:
        """Raise MirrorError if there is no launchctl."""
        if shutil.which("launchctl") is None:
            raise MirrorError("there is no launchctl on this machine; see `mirror service install --print`")

    def enable(self, *, start: bool) -> None:
        """Enable it for each login; with `start`, also start it now."""
        if not start:
            say("it starts at your next login")
            return
        _run("launchctl", "bootout", f"{self._domain}/{self._label}")
        done = _run("launchctl", "bootstrap", self._domain, str(self.path))
        if done.returncode:
            raise MirrorError(f"{self._label} does not start ({_reason(done)}); see mirror.log for the reason")
        say(f"{self._label} is running; `mirror status` shows its state, mirror.log in the home is its log")

    def disable(self) -> None:
        """Stop it."""
        done = _run("launchctl", "bootout", f"{self._domain}/{self._label}")
        if done.returncode:
            warn(f"launchd did not stop {self._label} ({_reason(done)})")

    def forget(self) -> None:
        """Do nothing: launchd keeps no record of removed agents."""

    def state(self) -> tuple[bool, str]:
        """Return whether it is running, and a text that describes its state."""
        self.check()
        done = _run("launchctl", "print", f"{self._domain}/{self._label}")
        if done.returncode:
            return False, "not loaded"
        found = dict(re.findall(r"^\s*(state|pid|last exit code) = (.+)$", done.stdout, re.MULTILINE))
        running = found.get("state") == "running"
        more = f", pid {found['pid']}" if "pid" in found else f", last exit code {found.get('last exit code', '?')}"
        return running, f"{found.get('state', 'unknown')}{more}"


def _manager(name: str) -> Systemd | Launchd:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name) or name.endswith(".service"):
        raise UsageError(f"{name!r} is not a valid service name; use letters, digits, -, _ and .")
    return Launchd(name) if sys.platform == "darwin" else Systemd(name)


def _account(*, system: bool, user: str | None, show: bool) -> str | None:
    """Return the account of a system unit, None for a user's own. Raises UsageError."""
    if not system:
        if user is not None:
            raise UsageError("--user is for a system unit; add --system")
        return None
    if sys.platform == "darwin":
        raise UsageError("--system is for systemd; launchd has no system units of `mirror service`")
    if not show:
        raise UsageError(
            "a system unit is installed by its administrator: add --print, and write it to /etc/systemd/system"
        )
    account = user if user is not None else getpass.getuser()
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?", account):
        raise UsageError(f"{account!r} is not the name of an account")
    return account


def _service(given: Invocation, name: str, user: str | None = None) -> units.Service:
    environment = units.carried(given.environ)
    for variable in [found for found in environment if "proxy" in found.lower()]:
        if units.holds_password(environment[variable]):
            warn(f"{variable} holds a password and was left out; add it with `systemctl --user edit {name}`")
            del environment[variable]
    # Links are not followed, since Python finds its virtual environment by the path of the interpreter.
    # -P: a folder called `mirror` where the service starts must not shadow this package.
    command = [str(Path(sys.executable).absolute()), "-P", "-m", "mirror.cli", "daemon"]
    if not str(given.home.data).isprintable() or not command[0].isprintable():
        raise UsageError(f"{str(given.home.data)!r} contains a control character, which a service file cannot hold")
    return units.Service(name, command, given.home.data, environment, user)


def _check_key(given: Invocation) -> str | None:
    """Return why the service would not find a key; None if it would."""
    from mirror.settings import credentials

    base_url = given.settings().server.base_url
    try:
        credentials.find(base_url, {name: value for name, value in given.environ.items() if name != "WANDB_API_KEY"})
    except AuthError as error:
        if not given.environ.get("WANDB_API_KEY"):
            return str(error)
        return (
            "the service does not see WANDB_API_KEY, which is only set in this environment: "
            "run `mirror login` to store the key in netrc"
        )
    return None


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MirrorError(f"`{' '.join(command[:3])}` failed: {error}") from error


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    text = one_line(done.stderr) or one_line(done.stdout) or f"exit code {done.returncode}"
    return text.removesuffix(".")
