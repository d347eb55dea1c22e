from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from mirror.errors import ConfigError
from mirror.settings.home import Home
from mirror.settings.settings import SECTIONS, Settings, load, render
from mirror.settings.values import ArtifactChoice, ArtifactPattern, FileChoice

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
NO_KEY_HERE = "a key is never kept in the config; remove it, and run `mirror login` or set WANDB_API_KEY"


def write(home: Home, text: str) -> None:
    home.config.parent.mkdir(parents=True, exist_ok=True)
    home.config.write_text(text, encoding="utf-8")


def refused(home: Home, text: str, environ: dict[str, str] | None = None) -> str:
    write(home, text)
    with pytest.raises(ConfigError) as error:
        load(home, environ or {})
    return str(error.value).removeprefix(f"{home.config}, ")


def test_the_example_holds_every_setting_with_its_default(home: Home) -> None:
    """The example is what a person copies: key by key the same as the dataclasses."""
    document = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    write(home, EXAMPLE.read_text(encoding="utf-8"))
    settings = load(home, {})
    assert document.pop("projects") == list(settings.projects) == ["my-team/vision", "my-team/*"]
    assert {name: list(table) for name, table in document.items()} == {
        name: [field.name for field in dataclasses.fields(kind)] for name, kind in SECTIONS.items()
    }
    defaults = Settings()
    for section in SECTIONS:
        for field in dataclasses.fields(SECTIONS[section]):
            reported = getattr(getattr(settings, section), field.name)
            assert (section, field.name, reported) == (
                section,
                field.name,
                getattr(getattr(defaults, section), field.name),
            )


def test_the_example_is_what_the_settings_render() -> None:
    """Explanations and defaults stand once, at the settings."""
    assert EXAMPLE.read_text(encoding="utf-8") == render(["my-team/vision", "my-team/*"])


def test_a_file_with_comments_only_means_the_defaults(home: Home) -> None:
    """What `mirror init` writes keeps following the defaults."""
    write(home, render(["a/b"], commented=True))
    assert load(home, {}) == dataclasses.replace(Settings(), projects=("a/b",), file=home.config)


def test_every_setting_is_read(home: Home) -> None:
    """Durations are seconds, counts are whole numbers."""
    write(
        home,
        """
        projects = ["team/vision", "team/*", "team/vis-*"]
        [server]
        base_url = "http://localhost:8080/"
        timeout = "1.5m"
        max_concurrency = 3
        [sync]
        interval = "1d"
        live_interval = "500ms"
        reconcile_interval = "6h"
        history = []
        system_metrics = true
        metadata = true
        console = true
        reports = true
        files = ["*.json", "media/**"]
        files_max = "1.5MB"
        files_budget = ""
        artifacts = ["model:*", "dataset/mnist:latest", "model:*"]
        [store]
        tail_values = "100k"
        [publish]
        min_interval = "0s"
        storage_version = "v1.2.0"
        [http]
        listen = ""
        """,
    )
    settings = load(home, {})
    assert settings.projects == ("team/vision", "team/*", "team/vis-*")
    assert dataclasses.astuple(settings.server) == ("http://localhost:8080", 90.0, 3)
    artifacts = (ArtifactPattern("model", "*", "*"), ArtifactPattern("dataset", "mnist", "latest"))
    files = FileChoice(True, ("*.json", "media/**"))
    switches = (True, True, True, True, files, 1_500_000, 0, ArtifactChoice(True, artifacts))
    assert dataclasses.astuple(settings.sync) == (86400.0, 0.5, 21600.0, {}, (), *switches)
    assert (settings.store.tail_values, settings.publish.min_interval) == (100_000, 0.0)
    assert (settings.publish.storage_version, settings.http.listen) == ("v1.2.0", "")


def test_without_a_file_the_defaults_hold(home: Home) -> None:
    """Paths on the command line need no config."""
    assert load(home, {}, ["team/vision", "team/vision/abc123", "https:x"][:2]) == dataclasses.replace(
        Settings(), projects=("team/vision", "team/vision/abc123")
    )


def test_a_named_file_must_exist(home: Home, tmp_path: Path) -> None:
    """A typo in MIRROR_CONFIG must not mean the defaults."""
    named = tmp_path / "other.toml"
    environ = {"MIRROR_HOME": str(home.data), "MIRROR_CONFIG": str(named)}
    with pytest.raises(ConfigError) as error:
        load(Home.find(environ), environ)
    assert str(error.value) == f"{named} does not exist: run `mirror init` to write it"


def test_the_environment_wins_over_the_file(home: Home) -> None:
    """WANDB_BASE_URL and WANDB_ENTITY mean the same as to the official client."""
    write(home, 'projects = ["vision", "other/x"]\n[server]\nbase_url = "https://wandb.example.com"\n')
    settings = load(home, {"WANDB_BASE_URL": "http://127.0.0.1:9/", "WANDB_ENTITY": "team"})
    assert (settings.server.base_url, settings.entity) == ("http://127.0.0.1:9", "team")
    assert settings.projects == ("team/vision", "other/x")


def test_the_server_of_the_official_client_stands_below_the_file(home: Home, tmp_path: Path) -> None:
    """`wandb login --host` saves the server; whoever did that need not tell it again."""
    (tmp_path / "settings").write_text("[default]\nbase_url = https://wandb.example.com\n", encoding="utf-8")
    environ = {"WANDB_CONFIG_DIR": str(tmp_path)}
    assert load(home, environ).server.base_url == "https://wandb.example.com"
    write(home, '[server]\nbase_url = "https://api.wandb.ai"\n')
    assert load(home, environ).server.base_url == "https://api.wandb.ai"
    (tmp_path / "settings").write_text("not a settings file", encoding="utf-8")
    home.config.unlink()
    assert load(home, environ).server.base_url == "https://api.wandb.ai"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[sync]\nintervall = "5m"', 'line 2: sync.intervall: unknown key, did you mean "interval"?'),
        ('[sync]\n# timeout\ntimeout = "5s"', 'line 3: sync.timeout: unknown key, did you mean "server.timeout"?'),
        (
            '[sync]\nfiles = "all"',
            'line 2: sync.files: must be false, "list", "content", or a list of globs such as ["*.json", "media/**"], not "all"',
        ),
        (
            "[sync]\nfiles = []",
            'line 2: sync.files: must be false, "list", "content", or a list of globs such as ["*.json", "media/**"], not []',
        ),
        (
            '[sync]\nfiles_max = "1 gig"',
            'line 2: sync.files_max: must be a size such as "500MB" or "1GB", or "" for no limit, not "1 gig"',
        ),
        (
            "[sync]\nfiles_budget = 5",
            'line 2: sync.files_budget: must be a size such as "500MB" or "1GB", or "" for no limit, not 5',
        ),
        (
            '[sync]\nartifacts = "all"',
            'line 2: sync.artifacts: must be false, "list", "content", or a list of patterns such as ["model:*", "dataset/mnist:latest"], not "all"',
        ),
        (
            "[sync]\nartifacts = []",
            'line 2: sync.artifacts: must be false, "list", "content", or a list of patterns such as ["model:*", "dataset/mnist:latest"], not []',
        ),
        (
            '[sync]\nartifacts = ["model"]',
            'line 2: sync.artifacts: must contain patterns "TYPE:ALIAS" or "TYPE/NAME:ALIAS", not "model"; write "model:*" for all versions',
        ),
        (
            '[sync]\nartifacts = ["model:*", "team/vision/mnist:v3"]',
            'line 2: sync.artifacts: must contain patterns "TYPE:ALIAS" or "TYPE/NAME:ALIAS", not "team/vision/mnist:v3"; each part may be a glob',
        ),
        (
            '[sync]\nartifacts = ["model:"]',
            'line 2: sync.artifacts: must contain patterns "TYPE:ALIAS" or "TYPE/NAME:ALIAS", not "model:"; each part may be a glob',
        ),
        ("\n[synk]\n", 'line 2: synk: unknown key, did you mean "sync"?'),
        ('project = ["a/b"]', 'line 1: project: unknown key, did you mean "projects"?'),
        ("zzz = 1", "line 1: zzz: unknown key, known: projects, server, sync, store, publish, http, local, lake"),
        (
            '[local]\ndirs = "~/wandb"',
            'line 2: local.dirs: must be a list of folders such as ["~/train/wandb"], not "~/wandb"',
        ),
        ('[local]\ndirs = ["wandb"]', 'line 2: local.dirs: must contain full paths, from / or ~, not "wandb"'),
        (
            '[lake]\nurl = "lake"',
            'line 2: lake.url: must be a full path, from / or ~, or an address, not "lake"',
        ),
        (
            '[lake]\nurl = "s3://id:key@bucket/x"',
            "line 2: lake.url: must have no key in the address: it is read from the environment, see docs/scale.md",
        ),
        (
            '[lake]\nkeep = "5m"',
            'line 2: lake.keep: must be at least "1h", so that readers can finish, not "5m"',
        ),
        ('[local]\nentity = "a/b"', 'line 2: local.entity: must be the name of a user or team, not "a/b"'),
        ('sync = "5m"', "line 1: sync: must be a table: write [sync]"),
        (
            '[sync]\ninterval = "5 minutes"',
            'line 2: sync.interval: must be a duration such as "30s", "5m", "6h" or "500ms", not "5 minutes"',
        ),
        (
            "[sync]\ninterval = 300",
            'line 2: sync.interval: must be a duration such as "30s", "5m", "6h" or "500ms", not 300',
        ),
        (
            '[sync]\ninterval = "-5m"',
            'line 2: sync.interval: must be a duration such as "30s", "5m", "6h" or "500ms", not "-5m"',
        ),
        ('[sync]\ninterval = "0s"', 'line 2: sync.interval: must be greater than zero, not "0s"'),
        ('[sync]\ninterval = "99999d"', 'line 2: sync.interval: must be at most 3650 days, not "99999d"'),
        (
            'sync.live_interval = "x"',
            'line 1: sync.live_interval: must be a duration such as "30s", "5m", "6h" or "500ms", not "x"',
        ),
        ('[sync]\nsystem_metrics = "yes"', 'line 2: sync.system_metrics: must be true or false, not "yes"'),
        (
            '[sync]\nhistory = "loss"',
            'line 2: sync.history: must be a list of key globs such as ["loss", "val/*"], not "loss"',
        ),
        ('[sync]\nfilters = "x"', 'line 2: sync.filters: must be a table such as {state = "finished"}, not "x"'),
        (
            "[server]\nmax_concurrency = 0",
            'line 2: server.max_concurrency: must be a positive count such as 8, "100k" or "10M", not 0',
        ),
        (
            "[server]\nmax_concurrency = true",
            'line 2: server.max_concurrency: must be a positive count such as 8, "100k" or "10M", not true',
        ),
        (
            '[store]\ntail_values = "ten"',
            'line 2: store.tail_values: must be a positive count such as 8, "100k" or "10M", not "ten"',
        ),
        (
            '[server]\ntimeout = "30s"\nbase_url = "api.wandb.ai"',
            'line 3: server.base_url: must be an address such as https://api.wandb.ai, not "api.wandb.ai"',
        ),
        (
            '[server]\nbase_url = "https://wandb.ai"',
            "line 2: server.base_url: is not the address of the API: did you mean https://api.wandb.ai?",
        ),
        (
            '[server]\nbase_url = "http://api.wandb.ai"',
            "line 2: server.base_url: is not the address of the API: did you mean https://api.wandb.ai?",
        ),
        (
            '[server]\nbase_url = "https://api:0123456789@host"',
            "line 2: server.base_url: must not contain a key; run `mirror login` or set WANDB_API_KEY",
        ),
        (
            '[server]\nbase_url = "https://host:99999"',
            'line 2: server.base_url: must be an address such as https://api.wandb.ai, not "https://host:99999"',
        ),
        (
            '[server]\napi_key = "0123456789012345678901234567890123456789"',
            f"line 2: server.api_key: unknown key, {NO_KEY_HERE}",
        ),
        (
            'WANDB_API_KEY = "0123456789012345678901234567890123456789"',
            f"line 1: WANDB_API_KEY: unknown key, {NO_KEY_HERE}",
        ),
        (
            '[publish]\nstorage_version = "1.4"',
            'line 2: publish.storage_version: must be one of v1.2.0, v1.3.0, v1.4.0, v1.5.0, not "1.4"',
        ),
        (
            '[http]\nlisten = "8642"',
            'line 2: http.listen: must be an address such as "127.0.0.1:8642", or "" to turn it off, not "8642"',
        ),
        (
            '[http]\nlisten = "localhost:99999"',
            'line 2: http.listen: must be an address such as "127.0.0.1:8642", or "" to turn it off, not "localhost:99999"',
        ),
        (
            '[http]\ncert = "cert.pem"',
            'line 2: http.cert: must be a full path, from / or ~, not "cert.pem"',
        ),
        ("[http]\nrate = 0", 'line 2: http.rate: must be a positive count such as 8, "100k" or "10M", not 0'),
        ('projects = "a/b"', 'line 1: projects: must be a list such as ["my-team/vision"], not "a/b"'),
        (
            'projects = [\n  "a/b",\n  "c"\n]',
            'line 3: projects: "c" needs an entity: use "entity/c" or set WANDB_ENTITY',
        ),
        (
            'projects = [\n  "a/b",\n  "*/c"\n]',
            'line 3: projects: "*/c" must be "entity/project" or "entity/*", not "*/c"',
        ),
        ("projects = [3]", "line 1: projects: 3 must be a text, not 3"),
        ("[sync\n", "line 1: not valid TOML: Expected ']' at the end of a table declaration"),
        ('[sync]\ninterval = "5m', "line 2: not valid TOML: Illegal character '\\n'"),
        ("[sync]\n[sync]\n", "line 2: not valid TOML: Cannot declare ('sync',) twice"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_key(home: Home, text: str, message: str) -> None:
    """One line: file, line, key, and what to write instead."""
    assert refused(home, f"{text}\n") == message


def test_a_filter_is_checked_when_the_config_is_read(home: Home) -> None:
    """A filter with a typo must not mirror nothing."""
    assert refused(home, '[sync]\nfilters = {"$foo" = 1}\n').startswith("line 2: sync.filters: is not a valid filter: ")
    assert refused(home, '[sync]\nfilters = { created_at = {"$gt" = "7d"} }\n') == (
        'line 2: sync.filters: must not contain a time relative to now, such as "7d": the server reads it; write a day'
    )
    write(home, '[sync]\nfilters = {state = "finished", "config.lr" = {"$gt" = 0.1}}\n')
    assert load(home, {}).sync.filters == {"state": "finished", "config.lr": {"$gt": 0.1}}


@pytest.mark.parametrize("text", ["x = " + "9" * 5000, "x = " + "[" * 2000, "x = \x00"])
def test_what_the_parser_cannot_take_is_an_error_like_any_other(home: Home, text: str) -> None:
    """No file makes the command fall over."""
    assert "not valid TOML" in refused(home, text)


def test_a_file_that_cannot_be_read_is_named(home: Home) -> None:
    """Latin-1 is not UTF-8, and a folder is no file."""
    home.data.mkdir()
    home.config.write_bytes(b'projects = ["caf\xe9/x"]')
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        load(home, {})
    home.config.unlink()
    home.config.mkdir()
    with pytest.raises(ConfigError, match=f"cannot read {home.config}: Is a directory"):
        load(home, {})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"WANDB_BASE_URL": "nonsense"},
            'WANDB_BASE_URL must be an address such as https://api.wandb.ai, not "nonsense"',
        ),
        (
            {"WANDB_BASE_URL": "https://app.wandb.ai"},
            "WANDB_BASE_URL is not the address of the API: did you mean https://api.wandb.ai?",
        ),
    ],
)
def test_a_setting_from_the_environment_is_named_by_its_variable(
    home: Home, environ: dict[str, str], message: str
) -> None:
    """The line of a file would mislead."""
    with pytest.raises(ConfigError) as error:
        load(home, environ)
    assert str(error.value) == message


def test_the_proxied_address_of_the_hosted_service_is_its_api(home: Home) -> None:
    """The official client makes the same of it."""
    environ = {"WANDB_BASE_URL": "https://forge.coreweave.com/api/wandb/"}
    assert load(home, environ).server.base_url == "https://api.forge.coreweave.com"
    for wrong in ("https://forge.coreweave.com", "http://forge.coreweave.com/api/wandb"):
        message = r"^WANDB_BASE_URL is not the address of the API: did you mean https://api\.forge\.coreweave\.com\?$"
        with pytest.raises(ConfigError, match=message):
            load(home, {"WANDB_BASE_URL": wrong})
