"""`Runs.df()`: config and summary of a list of runs as one DataFrame."""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd
import pytest

import mirror as package
from mirror.errors import MissingPackage


@pytest.fixture
def runs(mirror: Any) -> Any:
    return package.Api().runs("team/vision", order="-created_at")


def test_a_row_per_run_and_a_column_per_key(runs: Any) -> None:
    """In the order of the list; whole numbers keep their digits, also where runs have none."""
    frame = runs.df()
    assert list(frame.run_id) == [run.id for run in runs] == ["twin", "gamma", "beta", "alpha"]
    assert list(frame.columns[12:]) == [
        "config.layers", "config.lr", "config.flag", "config.mixed", "config.model.depth", "config.model.kind",
        "summary.acc", "summary.val/loss",
    ]  # fmt: skip
    assert list(frame["config.layers"]) == [9007199254740993, 2, 1, 0]
    kinds = {name: str(frame[name].dtype) for name in frame.columns}
    assert (kinds["config.layers"], kinds["config.model.depth"], kinds["config.lr"]) == ("int64", "Int64", "float64")
    assert (kinds["config.flag"], kinds["created_at"]) == ("boolean", "datetime64[us]")
    assert frame["config.model.depth"].isna().tolist() == [True, True, True, False]
    assert frame["summary.acc"].fillna(-1).tolist() == [1.0, 0.5, -1, 0.0]
    assert frame["config.mixed"].dropna().tolist() == ["3", "x"]


def test_chosen_columns(runs: Any) -> None:
    """Only these, in their order; an unknown key is a warning, an unknown column an error."""
    with pytest.warns(UserWarning, match="config key 'layer' is in no run; did you mean 'layers'"):
        frame = runs.df(["config.layers", "name", "config.layer"])
    assert list(frame.columns) == ["config.layers", "name", "config.layer"]
    with pytest.raises(package.CommError, match="runs have no column lr; did you mean config"):
        runs.df(["lr"])
    with pytest.raises(package.CommError, match="must be a list of names"):
        runs.df("config.lr")
    assert package.Api().runs("team/vision", {"state": "x"}).df().shape == (0, 12)


def test_lists_are_lists(mirror: Any) -> None:
    """Documents come as Python values."""
    frame = package.Api().runs("team/vision").df(["config", "run_id"])
    assert frame["config"][0] == {"layers": 9007199254740993, "lr": 1.0}
    assert isinstance(frame, pd.DataFrame)


def test_without_pandas_one_line_names_the_extra(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is read; a notebook shows the line alone."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackage) as refused:
        runs.df()
    assert str(refused.value) == "pandas is not installed: `pip install 'wandb-mirror[pandas]'`"
    assert refused.value.__suppress_context__
    with pytest.raises(MissingPackage) as refused:
        runs[0].history()
    assert refused.value._render_traceback_() == [
        "MissingPackage: pandas is not installed: `pip install 'wandb-mirror[pandas]'`, or pandas=False for dictionaries"
    ]
