"""`mirror service`: the daemon in the background, by systemd on Linux and launchd on macOS."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from mirror.cli import units
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, leave, say, warn
from mirror.errors import AuthError, MirrorError, UsageError, one_line

service = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Run the daemon in the background: as a systemd user service, or a launchd agent on macOS.",
)

NAME = "wandb-mirror"

Name = Annotated[str, typer.Option("--name", metavar="NAME", help="What the service is called; one for each home.")]


@service.command()
def install(
    context: typer.Context,
    name: Name = NAME,
    show: Annotated[bool, typer.Option("--print", help="Print what would be written, and do nothing.")] = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start it now as well.")] = True,
) -> None:
    """Write the service, have it start with your session, and start it.

    It is given this command's MIRROR_HOME and config, and the server's address where the environment names one. The
    key is no part of it: the daemon takes it from netrc, where `mirror login` stores it.
    """
    from mirror.cli.output import replaced, write_text

    given = invocation(context)
    wanted = _service(given, name)
    manager = _manager(name)
    text = manager.text(wanted)
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
        raise UsageError(f"{manager.path} is the service of another home; give this one a name of its own with --name")
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
    """Tell whether the service is installed and runs; exit code 1 when it does not."""
    invocation(context)
    manager = _manager(name)
    if not manager.path.exists():
        say(f"no service {name} is installed; `mirror service install` does it")
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

    def text(self, wanted: units.Service) -> str:
        """The unit."""
        return units.systemd(wanted)

    def serves(self, data: Path) -> bool:
        """Whether what is installed was written for this home."""
        return units.mark(data) in self.path.read_text(encoding="utf-8", errors="replace").splitlines()

    def check(self) -> None:
        """Raises MirrorError where no systemd runs for this user."""
        hint = (
            "run `mirror daemon` under whatever starts programs here (in a container: as its command), "
            "or see `mirror service install --print`"
        )
        if shutil.which("systemctl") is None:
            raise MirrorError(f"there is no systemd on this machine; {hint}")
        done = _run("systemctl", "--user", "show-environment")
        if done.returncode:
            raise MirrorError(f"no systemd runs for this user ({_reason(done)}); {hint}")

    def enable(self, *, start: bool) -> None:
        """Have it start with the user's session, and now."""
        self._must("daemon-reload")
        self._must("enable", self._unit)
        if not start:
            say(f"it starts with your next session; now: `systemctl --user start {self._unit}`")
            return
        # Also takes a running service to the new unit.
        done = self._call("restart", self._unit)
        if done.returncode:
            raise MirrorError(
                f"{self._unit} does not start ({_reason(done)}); `journalctl --user -u {self._unit}` tells why, "
                "and so does mirror.log"
            )
        say(f"{self._unit} runs; `mirror status` tells how it gets on, `journalctl --user -u {self._unit}` its log")
        if not self._lingers():
            say("it ends when you log out; `loginctl enable-linger` keeps it, and starts it with the machine")

    def disable(self) -> None:
        """Stop it, and have it start no more."""
        done = self._call("disable", "--now", self._unit)
        if done.returncode:
            warn(f"systemd did not stop {self._unit} ({_reason(done)})")

    def forget(self) -> None:
        """Let systemd see that the unit is gone; where none runs there is nothing to tell."""
        if shutil.which("systemctl") is not None:
            self._call("daemon-reload")
            self._call("reset-failed", self._unit)

    def state(self) -> tuple[bool, str]:
        """Whether it runs, and what there is to say."""
        self.check()
        fields = ("ActiveState", "SubState", "MainPID", "UnitFileState", "StatusText", "Result", "NRestarts")
        done = self._must("show", self._unit, *(f"--property={field}" for field in fields))
        found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        running = found.get("ActiveState") == "active"
        parts = [f"{found.get('ActiveState')} ({found.get('SubState')})", found.get("UnitFileState", "")]
        if running:
            parts += [f"pid {found.get('MainPID')}", found.get("StatusText", "")]
        elif found.get("Result") not in (None, "success"):
            parts.append(f"{found['Result']}; `journalctl --user -u {self._unit}` tells why")
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
    """The launchd of macOS."""

    def __init__(self, name: str) -> None:
        self._label = name
        self._domain = f"gui/{os.getuid()}"
        self.path = Path("~/Library/LaunchAgents").expanduser() / f"{name}.plist"

    def text(self, wanted: units.Service) -> str:
        """The property list."""
        return units.launchd(wanted).decode()

    def serves(self, data: Path) -> bool:
        """Whether what is installed was written for this home."""
        return units.launchd_folder(self.path.read_bytes()) == str(data)

    def check(self) -> None:
        """Raises MirrorError where there is no launchctl."""
        if shutil.which("launchctl") is None:
            raise MirrorError("there is no launchctl on this machine; see `mirror service install --print`")

    def enable(self, *, start: bool) -> None:
        """Have it start with the user's session, and now."""
        if not start:
            say("it starts with your next session")
            return
        _run("launchctl", "bootout", f"{self._domain}/{self._label}")
        done = _run("launchctl", "bootstrap", self._domain, str(self.path))
        if done.returncode:
            raise MirrorError(f"{self._label} does not start ({_reason(done)}); mirror.log tells more")
        say(f"{self._label} runs; `mirror status` tells how it gets on, mirror.log in the home what it does")

    def disable(self) -> None:
        """Stop it."""
        done = _run("launchctl", "bootout", f"{self._domain}/{self._label}")
        if done.returncode:
            warn(f"launchd did not stop {self._label} ({_reason(done)})")

    def forget(self) -> None:
        """Nothing is kept."""

    def state(self) -> tuple[bool, str]:
        """Whether it runs, and what there is to say."""
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
        raise UsageError(f"{name!r} is no name for a service; use letters, digits, -, _ and .")
    return Launchd(name) if sys.platform == "darwin" else Systemd(name)


def _service(given: Invocation, name: str) -> units.Service:
    environment = units.carried(given.environ)
    for variable in [found for found in environment if "proxy" in found.lower()]:
        if units.holds_password(environment[variable]):
            warn(f"{variable} holds a password and is left out; `systemctl --user edit {name}` can add it")
            del environment[variable]
    # A virtual environment is known by the path of its interpreter, so links are not followed.
    # -P: a folder called `mirror` where the service starts is not taken for this program.
    command = [str(Path(sys.executable).absolute()), "-P", "-m", "mirror.cli", "daemon"]
    if not str(given.home.data).isprintable() or not command[0].isprintable():
        raise UsageError(f"{str(given.home.data)!r} holds a control character, which no service can be given")
    return units.Service(name, command, given.home.data, environment)


def _check_key(given: Invocation) -> str | None:
    """What is wrong when the service would find no key."""
    from mirror.settings import credentials

    base_url = given.settings().server.base_url
    try:
        credentials.find(base_url, {name: value for name, value in given.environ.items() if name != "WANDB_API_KEY"})
    except AuthError as error:
        if not given.environ.get("WANDB_API_KEY"):
            return str(error)
        return (
            "the service does not see WANDB_API_KEY, which only stands in this environment: "
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
