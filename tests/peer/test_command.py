"""`mirror query --remote` prints what `mirror query` prints on the mirror's own machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import InProcess
from tests.peer.conftest import Site

pytestmark = pytest.mark.xdist_group("peer")

cli = InProcess()

TYPES = (
    "SELECT 170141183460469231731687303715884105727::HUGEINT AS h, 'nan'::DOUBLE AS n, INTERVAL 3 DAY AS i, [1, NULL] AS l,"
    " {'a': 'b'} AS s, TIMESTAMP '2020-01-01' AS t, '\\xAA'::BLOB AS b, NULL AS nothing, 1 AS a, 2 AS a"
)


@pytest.fixture
def remote(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The options that name the mirror; the home is that of another machine."""
    monkeypatch.setenv("MIRROR_TOKEN", site.door.token)
    monkeypatch.setenv("MIRROR_HOME", str(tmp_path / "nothing"))
    return ["--remote", site.door.url]


def here(site: Site, monkeypatch: pytest.MonkeyPatch, *arguments: str, stdin: str = "") -> Any:
    with monkeypatch.context() as patch:
        patch.setenv("MIRROR_HOME", str(site.rig.home.data))
        return cli("query", *arguments, stdin=stdin)


@pytest.mark.parametrize(
    "arguments",
    [
        *([TYPES, "--format", name] for name in ("table", "json", "csv", "latex")),
        ["SELECT * FROM history WHERE run_id = 'run1' ORDER BY ALL", "--limit", "3"],
        ["SELECT * FROM history", "--count"],
        ["SELECT count(*) FROM runs", "--json", "--count"],
        ["EXPLAIN SELECT 1"],
        ["DESCRIBE runs", "--csv"],
        ["--filter", "{}", "--format", "table"],
        ["--filter", "{}", "--json", "--order", "-created_at", "--project", "team/p"],
        [
            "--where",
            "config.lr>0",
            "--select",
            "run_id,config.lr,summary.loss",
            "--order",
            "+config.lr",
            "--limit",
            "2",
        ],
        ["--where", "config.lr>0", "--project", "my-team/*", "--count"],
        ["--where", "config.lr>0", "--where", "state=finished", "--explain"],
        ["--where", "config.nosuch=1"],
        ["--filter", "{}", "--deleted", "--select", "run_id,state"],
    ],
    ids=" ".join,
)
def test_the_same_is_printed(
    site: Site, remote: list[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    wanted = here(site, monkeypatch, *arguments)
    assert wanted.exit_code == 0
    assert cli("query", *arguments, *remote) == wanted


@pytest.mark.parametrize(
    "arguments",
    [
        ["SELECT nosuch FROM runs"],
        ["SELECT *\nFROM nosuch"],
        ["DELETE FROM runs"],
        ["SELECT 'x'::INTEGER"],
        ["--filter", '{"$nosuch": 1}'],
        ["--filter", "{}", "--project", "team/nosuch"],
        ["--filter", "{}", "--select", "nosuch"],
        ["SELECT 1", "--deleted"],
    ],
    ids=" ".join,
)
def test_mistakes_get_the_same_line(
    site: Site, remote: list[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    wanted = here(site, monkeypatch, *arguments)
    found = cli("query", *arguments, *remote)
    assert (found.exit_code, found.data) == (wanted.exit_code, b"")
    assert found.exit_code in (1, 2)
    assert found.stderr == wanted.stderr


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.json"])
def test_files_are_the_same(
    site: Site, remote: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    sql = "SELECT run_id, key, step, value, text FROM history ORDER BY ALL"
    assert here(site, monkeypatch, sql, "-o", str(tmp_path / name)).exit_code == 0
    wanted = (tmp_path / name).read_bytes()
    assert cli("query", sql, "-o", str(tmp_path / name), *remote).exit_code == 0
    if name.endswith((".parquet", ".arrow")):
        read = pq.read_table if name.endswith(".parquet") else lambda file: pa.ipc.open_file(file).read_all()
        tables = [read(pa.BufferReader(content)) for content in ((tmp_path / name).read_bytes(), wanted)]
        assert tables[0].schema == tables[1].schema
        # NaN equals NaN in their text.
        assert repr(tables[0].to_pydict()) == repr(tables[1].to_pydict())
    else:
        assert (tmp_path / name).read_bytes() == wanted


def test_sql_from_stdin_and_a_token_from_a_file(
    site: Site, remote: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MIRROR_TOKEN")
    (tmp_path / "token").write_text(site.door.token + "\n")
    found = cli("query", "-", *remote, "--token-file", str(tmp_path / "token"), stdin="SELECT 1 AS one")
    assert (found.exit_code, found.stdout, found.stderr) == (0, "one\n1\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["SELECT 1", "--remote", "{url}"], 3,
         "error: no token for 127.0.0.1: set MIRROR_TOKEN; `mirror token add NAME` on the mirror's machine prints one"),
        (["SELECT 1", "--remote", "nonsense"], 2,
         "error: 'nonsense' is not the address of a mirror; write http://host:8642 or https://host"),
        (["SELECT 1", "--token-file", "x"], 2, "error: --token-file goes with --remote URL"),
        (["SELECT 1", "--remote", "{url}", "--token-file", "/nowhere/token"], 3,
         "error: the token file /nowhere/token cannot be read: No such file or directory"),
        (["--filter", "{{}}", "--compare", "--remote", "{url}"], 2,
         "error: --compare asks the W&B server with the mirror's own key: run it on the mirror's machine"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(
    site: Site, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, line: str
) -> None:
    found = cli("query", *(argument.format(url=site.door.url) for argument in arguments))
    assert (found.exit_code, found.data, found.stderr) == (code, b"", f"{line}\n")
