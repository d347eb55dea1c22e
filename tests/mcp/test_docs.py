"""docs/mcp.md: what people paste into their hosts is right, and the tools are those that there are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from mirror.mcp.arguments import CHARS
from mirror.mcp.asking import SECONDS
from mirror.mcp.tools import TOOLS
from mirror.query.questions import MEMORY

PAGE = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()


def test_the_configurations_of_hosts_start_the_server_or_name_its_address():
    blocks = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    cells = re.findall(r"\| `(\{.*\})` \|", PAGE)
    assert (len(blocks), len(cells)) == (2, 2)
    for text in [*blocks, *cells]:
        ((_, servers),) = json.loads(text).items()
        ((name, server),) = servers.items()
        assert name == "wandb-mirror"
        if "url" in server:
            assert server["url"].endswith("/mcp")
            assert server["headers"] == {"Authorization": "Bearer TOKEN"}
        else:
            assert (server["command"], server["args"]) == ("mirror", ["mcp"])


def test_the_configuration_of_codex_starts_the_server():
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert tomllib.loads(block) == {"mcp_servers": {"wandb-mirror": {"command": "mirror", "args": ["mcp"]}}}


def test_the_tools_of_the_page_are_those_that_there_are():
    assert re.findall(r"^\| `([a-z]+_?[a-z]*)` \| ", PAGE, re.MULTILINE) == list(TOOLS)


def test_the_limits_of_the_page_are_those_of_the_program():
    text = " ".join(PAGE.split())
    assert f"(`max_chars`, {CHARS.default:,} if not given)" in text
    assert f"with {SECONDS:.0f} seconds and {MEMORY // 10**9} GB" in text
