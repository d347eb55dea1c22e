from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mirror.errors import AuthError
from mirror.settings.credentials import Credential, find, store_key, valid_form

KEY = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
SAAS = "https://api.wandb.ai"


def test_the_environment_wins(home: object, tmp_path: Path) -> None:
    """As in the official client."""
    netrc(tmp_path / "netrc", f"machine api.wandb.ai login user password {OTHER}")
    environ = {"WANDB_API_KEY": KEY, "NETRC": str(tmp_path / "netrc")}
    assert find(SAAS, environ) == Credential(KEY, "WANDB_API_KEY")


def test_the_netrc_entry_of_the_host_and_port_is_next(tmp_path: Path) -> None:
    """A server on another port is another server."""
    path = netrc(
        tmp_path / "netrc",
        f"machine localhost:8080\n  login user\n  password {KEY}\nmachine localhost login user password {OTHER}",
    )
    environ = {"NETRC": str(path)}
    assert find("http://localhost:8080", environ) == Credential(KEY, f"netrc {path} (localhost:8080)")
    assert find("http://localhost", environ) == Credential(OTHER, f"netrc {path} (localhost)")


def test_the_usual_file_comes_before_the_windows_one(tmp_path: Path) -> None:
    """NETRC, then ~/.netrc, then ~/_netrc."""
    environ = {"HOME": str(tmp_path)}
    other = netrc(tmp_path / "_netrc", f"machine api.wandb.ai login user password {OTHER}")
    assert find(SAAS, environ) == Credential(OTHER, f"netrc {other} (api.wandb.ai)")
    usual = netrc(tmp_path / ".netrc", f"machine api.wandb.ai login user password {KEY}")
    assert find(SAAS, environ) == Credential(KEY, f"netrc {usual} (api.wandb.ai)")


def test_without_a_key_the_error_says_what_to_do(tmp_path: Path) -> None:
    """Three ways, one line."""
    with pytest.raises(AuthError) as error:
        find(SAAS, {"HOME": str(tmp_path)})
    assert str(error.value) == ("no API key for api.wandb.ai: run `mirror login`, `wandb login` or set WANDB_API_KEY")
    assert error.value.exit_code == 3


def test_a_key_of_the_hosted_service_serves_both_its_names(tmp_path: Path) -> None:
    """The official client reads the entry of api.wandb.ai for its newer address; the reverse is only hinted at."""
    path = netrc(tmp_path / "netrc", f"machine api.wandb.ai login user password {KEY}")
    environ = {"NETRC": str(path)}
    assert find("https://api.forge.coreweave.com", environ).key == KEY
    netrc(path, f"machine api.forge.coreweave.com login user password {KEY}")
    with pytest.raises(AuthError) as error:
        find(SAAS, environ)
    assert str(error.value) == (
        f"no API key for api.wandb.ai ({path} has one for api.forge.coreweave.com: should server.base_url be "
        "https://api.forge.coreweave.com?): run `mirror login`, `wandb login` or set WANDB_API_KEY"
    )


@pytest.mark.parametrize(
    ("key", "valid"),
    [
        (KEY, True),
        (f"local-{KEY}", True),
        (f"wandb_v1_{KEY}{KEY}", True),
        ("eyJh.eyJz-_.sig", True),
        (KEY[:39], False),
        (f"local-{KEY[:39]}", False),
        (f"{KEY} ", False),
        (f"{KEY[:20]}é{KEY[:20]}!", False),
        ("", False),
    ],
)
def test_the_form_of_a_key(key: str, valid: bool) -> None:
    """Judged as the official client judges it."""
    assert valid_form(key) is valid
    official = pytest.importorskip("wandb.sdk.lib.wbauth.validation").check_api_key(key)
    assert (official is None) is valid


def test_what_cannot_be_a_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    """A pasted half of a key stays out of every log."""
    with pytest.raises(AuthError) as error:
        find(SAAS, {"WANDB_API_KEY": "half-a-key", "HOME": str(tmp_path)})
    assert str(error.value) == (
        "the API key for api.wandb.ai from WANDB_API_KEY is not valid (40 or more letters, digits and _): "
        "run `mirror login` or set WANDB_API_KEY"
    )


def test_showing_a_credential_shows_no_key() -> None:
    """Nor does anything that holds one."""
    assert repr(Credential(KEY, "WANDB_API_KEY")) == "Credential(source='WANDB_API_KEY')"


def test_a_broken_netrc_is_named_without_quoting_it(tmp_path: Path) -> None:
    """The parser's own message would show part of the file."""
    path = netrc(tmp_path / "netrc", f"machine api.wandb.ai login user passw0rd {KEY}")
    with pytest.raises(AuthError) as error:
        find(SAAS, {"NETRC": str(path)})
    assert str(error.value) == f"{path}, line 1: not a valid netrc file; fix it or set WANDB_API_KEY"


def test_storing_a_key_keeps_everything_else(tmp_path: Path) -> None:
    """The entry of one host is replaced; the file is for its owner only."""
    path = netrc(
        tmp_path / ".netrc",
        f"# mine\nmachine github.com login me password x\nmachine api.wandb.ai\n  login user\n  password {OTHER}\n"
        'machine example.com login a password "b c"\n',
    )
    path.chmod(0o644)
    environ = {"HOME": str(tmp_path)}
    assert store_key(SAAS, KEY, environ) == path
    assert path.read_text(encoding="utf-8") == (
        '# mine\nmachine github.com login me password x\nmachine example.com login a password "b c"\n'
        f"machine api.wandb.ai\n  login user\n  password {KEY}\n"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [".netrc"]
    assert find(SAAS, environ).key == KEY


ENTRY = f"machine api.wandb.ai\n  login user\n  password {KEY}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("machine a login b password c\ndefault login anonymous password me@example.com\n",
         f"machine a login b password c\n{ENTRY}default login anonymous password me@example.com\n"),
        ("machine a login b password c default login x password y\n",
         f"machine a login b password c \n{ENTRY}default login x password y\n"),
        (f"default login x password y\nmachine api.wandb.ai login user password {OTHER}\n# the end\n",
         f"{ENTRY}default login x password y\n# the end\n"),
        ("machine default login machine password default\n",
         f"machine default login machine password default\n{ENTRY}"),
        ("# default\nmachine a login b password c", f"# default\nmachine a login b password c\n{ENTRY}"),
        ("macdef init\nmachine api.wandb.ai\ndefault\ncd /pub\n\nmachine a login b password c\n",
         f"macdef init\nmachine api.wandb.ai\ndefault\ncd /pub\n\nmachine a login b password c\n{ENTRY}"),
        ("machine a login b password c\nmacdef init\ncd /pub\n",
         f"machine a login b password c\nmacdef init\ncd /pub\n\n{ENTRY}"),
        (f'machine "api.wandb.ai" login user password "{OTHER}" # old\n# mine\n', f"# mine\n{ENTRY}"),
        (f"{ENTRY}machine a login b password c\nmachine api.wandb.ai\n\tlogin user\n# which\n\tpassword {OTHER}\n",
         f"machine a login b password c\n{ENTRY}"),
        (f"machine a login b password c machine api.wandb.ai login user password {OTHER}\nmachine d login e password f\n",
         f"machine a login b password c \nmachine d login e password f\n{ENTRY}"),
        (f"machine a\r\n  login b\r\n  password c\r\nmachine api.wandb.ai\r\n  login user\r\n  password {OTHER}\r\n",
         "machine a\r\n  login b\r\n  password c\r\n" + ENTRY.replace("\n", "\r\n")),
        (f'machine a login b password "c\nmachine api.wandb.ai login user password {OTHER}\n',
         f'machine a login b password "c\n{ENTRY}'),
    ],
    ids=["default", "default-in-a-line", "behind-default", "values-that-are-keywords", "no-final-newline", "macro",
         "open-macro", "quoted-with-comment", "two-entries", "entries-in-a-line", "crlf", "odd-quotes"],
)  # fmt: skip
def test_a_key_is_stored_where_every_program_finds_it(tmp_path: Path, before: str, after: str) -> None:
    """In front of `default`, and nothing else of the file changes."""
    path = tmp_path / ".netrc"
    path.write_bytes(before.encode())
    store_key(SAAS, KEY, {"HOME": str(tmp_path)})
    assert path.read_bytes().decode() == after
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if '"c' not in before:
        assert find(SAAS, {"HOME": str(tmp_path)}).key == KEY
    store_key(SAAS, KEY, {"HOME": str(tmp_path)})
    assert path.read_bytes().decode() == after


def test_a_key_of_an_ipv6_address_is_found_again(tmp_path: Path) -> None:
    """Python reads no quotes as a shell has them."""
    store_key("http://[::1]:8080", KEY, {"HOME": str(tmp_path)})
    assert find("http://[::1]:8080", {"HOME": str(tmp_path)}).key == KEY


def test_a_circle_of_links_is_one_line(tmp_path: Path) -> None:
    """Nothing is written."""
    (tmp_path / ".netrc").symlink_to(".netrc")
    with pytest.raises(AuthError, match=r"^cannot write .*\.netrc: "):
        store_key(SAAS, KEY, {"HOME": str(tmp_path)})


def test_a_first_key_makes_the_file(tmp_path: Path) -> None:
    """Also where NETRC points to a folder that is not there yet."""
    path = tmp_path / "new" / "netrc"
    store_key("http://localhost:8080", KEY, {"NETRC": str(path)})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find("http://localhost:8080", {"NETRC": str(path)}).key == KEY


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """A netrc kept in a folder of dotfiles is changed there."""
    target = netrc(tmp_path / "dotfiles-netrc", "machine github.com login me password x\n")
    link = tmp_path / ".netrc"
    link.symlink_to(target)
    store_key(SAAS, KEY, {"HOME": str(tmp_path)})
    assert link.is_symlink()
    assert find(SAAS, {"HOME": str(tmp_path)}).key == KEY


def test_the_official_client_reads_what_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One login serves both."""
    wbnetrc = pytest.importorskip("wandb.sdk.lib.wbauth.wbnetrc")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    store_key("https://wandb.example.com", KEY, {"NETRC": str(tmp_path / "netrc")})
    assert wbnetrc.read_netrc_auth(host="https://wandb.example.com") == KEY


def netrc(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path
