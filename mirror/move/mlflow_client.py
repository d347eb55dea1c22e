"""MLflow's own client, with its errors as ours."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mirror.errors import CommError, MirrorError, MissingPackage, one_line
from mirror.move.mlflow_run import Measured

T = TypeVar("T")

_AT_ONCE = 1000

_QUIET = ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
"""The client reports each use to its makers, and prints the address of each run, unless these are set."""

_HASTY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""For the first request: the client would try an address where nothing listens for four minutes."""


class Refused(MirrorError):
    """MLflow refused something of one run."""


class Tracking:
    """A tracking server or store. Raises CommError where it cannot be reached, else Refused."""

    def __init__(self, uri: str) -> None:
        """Connect, and ask for something. Raises MissingPackage and CommError."""
        for name in _QUIET:
            os.environ.setdefault(name, "true")
        try:
            import mlflow
            from mlflow import entities
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise MissingPackage("mlflow is not installed: `pip install 'wandb-mirror[mlflow]'`") from error
        self._error = MlflowException
        self._entities = entities
        self.name = _without_password(uri)
        with _environment(_HASTY):
            try:
                self._client = mlflow.MlflowClient(tracking_uri=uri)
                self._client.search_experiments(max_results=1)
            except Exception as error:
                raise CommError(f"MLflow at {self.name}: {self._reason(error)}", error) from error

    def _reason(self, error: BaseException) -> str:
        """Return the shortest useful part of an error, whose text may hold other errors and addresses."""
        text = one_line(str(error) or type(error).__name__)
        if "Max retries exceeded" in text or "Failed to establish a new connection" in text:
            return "nobody answers there; check the address, or start `mlflow server`"
        return _without_password(text)[:300]

    def _call(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except self._error as error:
            text = str(error)
            if "API request to" in text and "failed with exception" in text:
                raise CommError(
                    f"MLflow at {self.name}: {self._reason(error)}; run the command again to continue", error
                ) from error
            raise Refused(self._reason(error)) from error

    def experiment(self, name: str) -> str:
        """Return the id of the experiment with this name, which is created if there is none."""
        found = self._call(lambda: self._client.get_experiment_by_name(name))
        if found is None:
            return str(self._call(lambda: self._client.create_experiment(name)))
        if found.lifecycle_stage != "active":
            raise CommError(
                f"MLflow at {self.name}: its experiment {name} is deleted; restore it, or delete it for good"
            )
        return str(found.experiment_id)

    def runs(self, experiment: str, tag: str) -> dict[str, tuple[str, dict[str, str]]]:
        """Return the id and the tags of each run that has this tag, by the tag's value."""
        found: dict[str, tuple[str, dict[str, str]]] = {}
        token = None
        while True:
            page: Any = self._call(
                lambda token=token: self._client.search_runs(  # type: ignore[misc]
                    [experiment], f"tags.`{tag}` LIKE '%'", max_results=_AT_ONCE, page_token=token
                )
            )
            for run in page:
                found[run.data.tags[tag]] = (run.info.run_id, dict(run.data.tags))
            token = page.token
            if not token:
                return found

    def create(self, experiment: str, name: str, started: int | None, tags: Mapping[str, str]) -> str:
        """Create a run and return its id."""
        run: Any = self._call(
            lambda: self._client.create_run(experiment, start_time=started, tags=dict(tags), run_name=name)
        )
        return str(run.info.run_id)

    def params(self, run_id: str) -> dict[str, str]:
        """Return the parameters of a run."""
        run: Any = self._call(lambda: self._client.get_run(run_id))
        return dict(run.data.params)

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Measured] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log a batch."""
        made = self._entities
        self._call(
            lambda: self._client.log_batch(
                run_id,
                [made.Metric(one.name, one.value, one.at, one.step) for one in metrics],
                [made.Param(key, text) for key, text in (params or {}).items()],
                [made.RunTag(key, text) for key, text in (tags or {}).items()],
            )
        )

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, a hundred at a time."""
        listed = list(tags.items())
        for start in range(0, len(listed), 100):
            self.log(run_id, tags=dict(listed[start : start + 100]))

    def finish(self, run_id: str, status: str, ended: int | None) -> None:
        """Set the status, and the end of a run that is not running."""
        if status == "RUNNING":
            self._call(lambda: self._client.update_run(run_id, status=status))
        else:
            self._call(lambda: self._client.set_terminated(run_id, status, ended))

    def artifacts(self, run_id: str, above: str | None = None) -> dict[str, int]:
        """Return the sizes of the artifacts of a run by their paths."""
        found: dict[str, int] = {}
        for one in self._files(lambda: self._client.list_artifacts(run_id, above)):
            if one.is_dir:
                found |= self.artifacts(run_id, one.path)
            else:
                found[one.path] = int(one.file_size or 0)
        return found

    def upload(self, run_id: str, file: Path, above: str) -> None:
        """Upload a file below a folder of the artifacts."""
        self._files(lambda: self._client.log_artifact(run_id, str(file), above))

    def _files(self, work: Callable[[], T]) -> T:
        """Artifacts go to stores of many kinds, whose libraries may be missing and have errors of their own."""
        try:
            return work()
        except Exception as error:
            raise Refused(self._reason(error)) from error


def _without_password(text: str) -> str:
    return re.sub(r"(://)[^/@\s]*@", r"\1", text)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the block, unless the user has set them."""
    own = {name: text for name, text in values.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)
