"""`mirror service`: what it writes, what it tells the service manager, and where there is none."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.cli import units

KEY = "k" * 40
NETRC = f"machine 127.0.0.1:1\n  login user\n  password {KEY}\n"
UNIT = ".config/systemd/user/wandb-mirror.service"

# What stands for systemctl: it writes down how it was called, and answers as reported.
SYSTEMCTL = """#!/bin/sh
echo "$(basename "$0") $*" >> {calls}
case "$*" in
{answers}
esac
exit 0
"""


class Machine:
    """A user's machine: a home, a config, a key in netrc, and a PATH that holds what the test put there."""

    def __init__(self, bench):
        self.bench = bench
        self.calls_file = bench.root / "calls"
        self.bin = bench.root / "bin"
        self.bin.mkdir()
        netrc = bench.root / ".netrc"
        netrc.write_text(NETRC)
        netrc.chmod(0o600)
        bench.configure(interval="1h")
        self.environ = {
            "PATH": str(self.bin),
            "WANDB_BASE_URL": "http://127.0.0.1:1",
            "WANDB_API_KEY": "",
        }
        self.unit = bench.root / UNIT

    def put(self, name, answers=""):
        program = self.bin / name
        program.write_text(
            SYSTEMCTL.format(calls=self.calls_file, answers=answers).replace("$(basename", "$(/usr/bin/basename")
        )
        program.chmod(0o755)

    def __call__(self, *arguments, **environ):
        return self.bench.here("service", *arguments, **{**self.environ, **environ})

    def calls(self):
        found = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return found


@pytest.fixture
def machine(bench):
    return Machine(bench)


def settings(text):
    """The lines of a unit as (name, value)."""
    return [tuple(line.split("=", 1)) for line in text.splitlines() if "=" in line and not line.startswith("#")]


def words(value):
    """Words as systemd reads them, for the escapes that are used here."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(value)]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has launchd")
def test_it_installs_starts_tells_and_removes(machine):
    state = "ActiveState=active\nSubState=running\nMainPID=4711\nUnitFileState=enabled\nStatusText=1 project, 0 live\nNRestarts=2"
    machine.put("systemctl", f'  *show\\ wandb-mirror.service*) printf "{state}\n";;')
    machine.put("loginctl", "  *) echo Linger=no;;")
    done = machine("install")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        f"wrote {machine.unit}",
        "wandb-mirror.service is running; `mirror status` shows its state, `journalctl --user -u wandb-mirror.service` its log",
        "it ends when you log out; `loginctl enable-linger` keeps it running, and starts it at boot",
    ]
    assert machine.calls() == [
        "systemctl --user show-environment",
        "systemctl --user daemon-reload",
        "systemctl --user enable wandb-mirror.service",
        "systemctl --user restart wandb-mirror.service",
        f"loginctl show-user {os.getuid()} --property=Linger",
    ]
    assert machine.unit.read_text() == machine("install", "--print").stdout
    done = machine("status")
    reported = "active (running), enabled, pid 4711, 1 project, 0 live, restarted 2 times"
    assert (done.exit_code, done.stderr) == (0, f"{machine.unit}: {reported}\n")
    machine.calls()
    done = machine("uninstall")
    assert (done.exit_code, done.stderr) == (0, f"removed {machine.unit}; the mirror in {machine.bench.home} stays\n")
    assert machine.calls() == [
        "systemctl --user disable --now wandb-mirror.service",
        "systemctl --user daemon-reload",
        "systemctl --user reset-failed wandb-mirror.service",
    ]
    assert not machine.unit.exists()
    assert machine("uninstall").stderr == f"no service wandb-mirror is installed ({machine.unit} does not exist)\n"
    assert machine("status").exit_code == 1


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has launchd")
def test_a_service_that_does_not_start_is_reported_with_where_to_look(machine):
    failing = "  *restart*) echo 'Job for wandb-mirror.service failed.' >&2; exit 1;;\n"
    state = "ActiveState=failed\nSubState=failed\nUnitFileState=enabled\nResult=exit-code"
    machine.put("systemctl", f'{failing}  *show\\ wandb-mirror.service*) printf "{state}\n";;')
    done = machine("install")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        "error: wandb-mirror.service does not start (Job for wandb-mirror.service failed);"
        " see `journalctl --user -u wandb-mirror.service` and mirror.log for the reason"
    )
    done = machine("status")
    assert done.exit_code == 1
    assert done.stderr.endswith(
        ": failed (failed), enabled, exit-code; see `journalctl --user -u wandb-mirror.service` for the reason\n"
    )


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has launchd")
@pytest.mark.parametrize("bus", [False, True])
def test_where_no_systemd_runs_nothing_is_written_and_another_way_is_named(machine, bus):
    if bus:
        machine.put("systemctl", "  *) echo 'Failed to connect to bus: No medium found' >&2; exit 1;;")
        said = "no systemd runs for this user (Failed to connect to bus: No medium found)"
    else:
        said = "there is no systemd on this machine"
    done = machine("install")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {said}; run `mirror daemon` with the service manager of this machine (in a container: as its command),"
        " or see `mirror service install --print`\n"
    )
    assert not machine.unit.exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has launchd")
def test_the_unit_carries_home_config_and_server_and_no_key(machine):
    home = machine.bench.root / 'a b%h$HOME"n'
    config = machine.bench.root / "other config.toml"
    config.write_text('projects = ["team/p"]\n')
    text = machine.bench.here(
        "--config",
        str(config),
        "service",
        "install",
        "--print",
        **{
            **machine.environ,
            "MIRROR_HOME": str(home),
            "WANDB_API_KEY": KEY,
            "WANDB_ENTITY": "team",
            "HTTPS_PROXY": "http://user:secret@proxy:1",
            "HTTP_PROXY": "http://proxy:1",
        },
    ).stdout
    found = settings(text)
    assert [words(value) for name, value in found if name == "Environment"] == [
        [f"MIRROR_HOME={home}"],
        [f"MIRROR_CONFIG={config}"],
        ["WANDB_BASE_URL=http://127.0.0.1:1"],
        ["WANDB_ENTITY=team"],
        ["HTTP_PROXY=http://proxy:1"],
    ]
    values = dict(found)
    assert words(values["ReadWritePaths"]) == [str(home)]
    assert words(values["ExecStart"]) == [sys.executable, "-P", "-m", "mirror.cli", "daemon"]
    assert KEY not in text
    assert "secret" not in text
    assert {name: values[name] for name in ("Type", "Restart", "UMask", "NoNewPrivileges", "ProtectSystem")} == {
        "Type": "notify",
        "Restart": "on-failure",
        "UMask": "0077",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
    }
    assert int(values["WatchdogSec"]) == units.WATCHDOG_SECONDS


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is what judges")
def test_systemd_finds_nothing_wrong_with_the_unit(machine, tmp_path):
    run = machine.bench.root / "run"  # short, since other units have sockets in it
    run.mkdir(mode=0o700, exist_ok=True)
    unit = tmp_path / "wandb-mirror.service"
    for folder in (machine.bench.root / 'a b%h$HOME"n', Path("/var/lib/mirror")):
        unit.write_text(machine("install", "--print", MIRROR_HOME=str(folder)).stdout)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", "--man=no", str(unit)],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(run)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is what judges")
def test_a_system_unit_is_printed_for_the_administrator(machine, tmp_path):
    done = machine("install", "--system", "--user", "root", "--print")
    assert done.exit_code == 0
    found = settings(done.stdout)
    assert {("User", "root"), ("WantedBy", "multi-user.target"), ("PrivateDevices", "yes")} <= set(found)
    unit = tmp_path / "wandb-mirror.service"
    unit.write_text(done.stdout)
    judged = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (judged.returncode, judged.stdout, judged.stderr) == (0, "", "")
    for arguments, message in (
        (["--system"], "a system unit is installed by its administrator: add --print, and write it to /etc/systemd/"),
        (["--user", "root"], "--user is for a system unit; add --system"),
        (["--system", "--print", "--user", "a b"], "'a b' is not the name of an account"),
    ):
        done = machine("install", *arguments)
        assert (done.exit_code, done.stdout, done.stderr.startswith(f"error: {message}")) == (2, "", True)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has launchd")
def test_a_key_that_the_service_would_not_see_is_reported_before_anything_is_written(machine):
    machine.put("systemctl")
    (machine.bench.root / ".netrc").unlink()
    done = machine("install", WANDB_API_KEY=KEY)
    assert done.exit_code == 3
    assert done.stderr == (
        "error: the service does not see WANDB_API_KEY, which is only set in this environment:"
        " run `mirror login` to store the key in netrc\n"
    )
    assert not machine.unit.exists()
    assert machine("install").exit_code == 3
    done = machine("install", "--print", WANDB_API_KEY=KEY)
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: the service does not see WANDB_API_KEY")
    assert KEY not in done.stdout


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has launchd")
def test_a_second_home_needs_a_name_of_its_own(machine):
    machine.put("systemctl")
    assert machine("install").exit_code == 0
    other = machine.bench.root / "other"
    other.mkdir()
    (other / "config.toml").write_text('projects = ["team/p"]\n')
    done = machine("install", MIRROR_HOME=str(other))
    assert done.exit_code == 2
    assert "is the service of another home; choose another name with --name" in done.stderr
    assert machine("install", "--name", "mirror-2", "--no-start", MIRROR_HOME=str(other)).exit_code == 0
    assert machine.unit.with_name("mirror-2.service").exists()
    assert machine("install", "--name", "a/b").exit_code == 2
    (other / "config.toml").write_text("projects = []\n")
    done = machine("install", "--name", "mirror-2", MIRROR_HOME=str(other))
    assert (done.exit_code, "names no projects: run `mirror init` first" in done.stderr) == (2, True)


def test_on_macos_it_is_a_launch_agent(machine, monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    machine.put("launchctl", "  print*) printf 'x = {\\n\\tstate = running\\n\\tpid = 12\\n}\\n';;")
    home = machine.bench.root / "a & <b>"
    home.mkdir()
    (home / "config.toml").write_text('projects = ["team/p"]\n')
    assert machine("install", MIRROR_HOME=str(home)).exit_code == 0
    path = machine.bench.root / "Library/LaunchAgents/wandb-mirror.plist"
    assert plistlib.loads(path.read_bytes()) == {
        "Label": "wandb-mirror",
        "ProgramArguments": [sys.executable, "-P", "-m", "mirror.cli", "daemon"],
        "EnvironmentVariables": {"MIRROR_HOME": str(home), "WANDB_BASE_URL": "http://127.0.0.1:1"},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 30,
        "ExitTimeOut": 300,
        "Umask": 0o077,
        "ProcessType": "Background",
        "WorkingDirectory": str(home),
    }
    domain = f"gui/{os.getuid()}"
    assert machine.calls() == [
        f"launchctl bootout {domain}/wandb-mirror",
        f"launchctl bootstrap {domain} {path}",
    ]
    assert machine("status").stderr == f"{path}: running, pid 12\n"
    assert machine("install").exit_code == 2  # of another home
    assert machine("uninstall", MIRROR_HOME=str(home)).exit_code == 0
    assert not path.exists()
