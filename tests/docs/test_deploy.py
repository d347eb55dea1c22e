"""The files in deploy/ are valid, each by its own tool where there is one, and name what exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import compose_spec
import kubernetes_validate
import promql_parser
import pytest
import yaml

from mirror.settings.home import Home
from mirror.settings.settings import load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"


def rules():
    (group,) = yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text())["groups"]
    return group["rules"]


def board():
    return json.loads((DEPLOY / "grafana-dashboard.json").read_text())


def expressions():
    panels = [target["expr"] for panel in board()["panels"] for target in panel["targets"]]
    return [rule["expr"] for rule in rules()] + panels


def used_metrics() -> set[str]:
    """The metrics that the alerts and the dashboard name. Raises for an expression that is not PromQL."""
    found: set[str] = set()

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            found.add(node.name)

    for expression in expressions():
        promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def test_the_expressions_use_metrics_that_are_documented():
    """tests/ops/test_health.py looks for them in what a daemon serves."""
    documented = set(re.findall(r"`(mirror_\w+)`", (ROOT / "docs" / "operations.md").read_text()))
    assert len(used_metrics()) > 10
    assert used_metrics() - documented == set()


def test_each_alert_says_what_is_wrong_and_what_to_do():
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is what judges; without it the parser above does"
)
def test_promtool_takes_the_rules():
    done = subprocess.run(
        ["promtool", "check", "rules", DEPLOY / "prometheus-rules.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one_that_grafana_imports():
    found = board()
    assert (found["title"], found["uid"]) == ("wandb-mirror", "wandb-mirror")
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    cells = set()
    for panel in found["panels"]:
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & cells, panel["title"]
        assert max(x for x, _ in mine) < 24, panel["title"]
        cells |= mine
    variables = {variable["name"] for variable in found["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(found["panels"]))) <= variables


def test_kubernetes_takes_the_manifests():
    kinds = {}
    for document in documents("kubernetes.yaml"):
        kubernetes_validate.validate(document, "1.32", strict=True)
        kinds[document["kind"]] = document
    assert set(kinds) == {"ConfigMap", "PersistentVolumeClaim", "Deployment"}
    deployment = kinds["Deployment"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    pod = deployment["template"]["spec"]
    mounted = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == mounted
    compile(pod["containers"][0]["livenessProbe"]["exec"]["command"][2], "probe", "exec")


def test_compose_takes_its_file():
    text = (DEPLOY / "compose.yaml").read_text()
    compose_spec.PyCompose.from_yaml(text)
    (service,) = yaml.safe_load(text)["services"].values()
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DOCKERFILE


def test_the_configs_are_valid(tmp_path):
    (tmp_path / "kubernetes.toml").write_text(documents("kubernetes.yaml")[0]["data"]["config.toml"])
    for config in (DEPLOY / "config" / "config.toml", tmp_path / "kubernetes.toml"):
        assert load(Home(data=tmp_path, config=config), {}).projects == ("my-team/vision",)


def test_the_dockerfile_has_no_fault_and_copies_what_is_there():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name
        for words in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
        for name in words.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE.read_text(), re.MULTILINE)


def docker() -> bool:
    """Whether images can be built here."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=60).returncode == 0


@pytest.mark.soak
def test_the_image_is_built_and_answers():
    if not docker():
        pytest.skip("no Docker daemon runs here; hadolint judges the Dockerfile")
    subprocess.run(["docker", "build", "-q", "-f", DOCKERFILE, "-t", "wandb-mirror-test", ROOT], check=True)
    done = subprocess.run(
        ["docker", "run", "--rm", "wandb-mirror-test", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("wandb-mirror ")
