"""The notebooks of examples/ run from their first cell to their last, and are kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mirror.sandbox import sample
from tests.api.conftest import bench, full

__all__ = ["full"]

pytestmark = pytest.mark.xdist_group("notebooks")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("full")
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each code cell; figures come out of the cells that draw."""
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path):
    """So that its changes can be read."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells] == [([], None)] * len(cells)


def test_pulling_and_writing_work_in_a_notebook():
    """Where a loop runs already, and DuckDB takes the process for an interactive one."""
    cells = (
        "import mirror; api = mirror.Api(); run = api.run('my-team/vision/vision00')",
        "run.summary.update({'from': 'a cell'}); api.flush(); api.refresh(pull=True)",
        "print(api.run('my-team/vision/vision00').summary['from'], len(run.history()))",
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with bench(sample.small()):
        NotebookClient(notebook, timeout=120).execute()
    assert [output["text"] for output in notebook.cells[2].outputs] == ["a cell 100\n"]


def test_there_are_notebooks():
    """Two."""
    assert [path.stem for path in NOTEBOOKS] == ["filter_to_figure", "sweep"]
