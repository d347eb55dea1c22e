"""The fields of a run that can be edited, and how their changes are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from mirror.api import edits
from mirror.api.edits import Changes
from mirror.api.run_facts import RunFacts
from mirror.api.summary import Summary
from mirror.errors import ArgumentError
from mirror.snapshot.runs import RunPage


class EditableRun(RunFacts):
    """A run whose values can be changed; `update` writes the changes."""

    _own: dict[str, Any] | None = None

    @property
    def name(self) -> str | None:
        """The display name, such as "sunny-sky-12"."""
        own = self._own
        return self._row[2] if own is None or "name" not in own else cast("str | None", own["name"])

    @name.setter
    def name(self, value: str | None) -> None:
        self._held["name"] = value

    @property
    def display_name(self) -> str | None:
        """The same as `name`."""
        return self.name

    @display_name.setter
    def display_name(self, value: str | None) -> None:
        self.name = value

    @property
    def notes(self) -> str | None:
        """Notes about the run."""
        return self._editable("notes")

    @notes.setter
    def notes(self, value: str | None) -> None:
        self._held["notes"] = value

    @property
    def description(self) -> str | None:
        """The run's description."""
        return self._editable("description")

    @description.setter
    def description(self, value: str | None) -> None:
        self._held["description"] = value

    @property
    def tags(self) -> list[str]:
        """Tags, in their order. Append to the list or replace it, then `update`."""
        if "tags" not in self._held:
            self._held["tags"] = list(self._fact("tags"))
        tags: list[str] = self._held["tags"]
        return tags

    @tags.setter
    def tags(self, value: Iterable[str]) -> None:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ArgumentError(f"tags={value!r}: must be a list of strings, such as ['baseline']")
        self._held["tags"] = list(value)

    @property
    def group(self) -> str | None:
        """The group that it belongs to."""
        return self._editable("group_name")

    @group.setter
    def group(self, value: str | None) -> None:
        self._held["group_name"] = value

    @property
    def job_type(self) -> str | None:
        """The kind of job, such as "train" or "eval"."""
        return self._editable("job_type")

    @job_type.setter
    def job_type(self, value: str | None) -> None:
        self._held["job_type"] = value

    @property
    def config(self) -> dict[str, Any]:
        """Inputs such as hyperparameters, as plain values. Change the dictionary, then `update`."""
        if "config" not in self._held:
            self._held["config"] = self._document("config")
        config: dict[str, Any] = self._held["config"]
        return config

    @config.setter
    def config(self, value: Mapping[str, Any]) -> None:
        if not isinstance(value, Mapping):
            raise ArgumentError(f"config={value!r}: must be a dictionary")
        self._held["config"] = dict(value)

    @property
    def summary(self) -> Summary:
        """Outputs: the latest value of each logged key, and values set by hand. `update` writes changes."""
        if "summary" not in self._held:
            self._held["summary"] = Summary(self._document("summary"), self._write_summary)
        summary: Summary = self._held["summary"]
        return summary

    @property
    def summary_metrics(self) -> dict[str, Any]:
        """The summary as a plain dictionary."""
        values: dict[str, Any] = self.summary._json_dict  # noqa: SLF001
        return values

    @property
    def rawconfig(self) -> dict[str, Any]:
        """The config with W&B's own part of it, `_wandb`."""
        own = self._page.document(self._row[0], "config_meta")
        return {**({"_wandb": own} if own else {}), **self.config}

    @property
    def json_config(self) -> str:
        """The config as the server stores it: JSON, each value wrapped."""
        return json.dumps({key: {"value": value, "desc": None} for key, value in self.rawconfig.items()})

    def update(self) -> None:
        """Write the changes of this run to the server, then into the mirror.

        Only changes are sent: what others changed in config, summary and tags in the meantime stays. If the server
        refuses, raises CommError, and the mirror is unchanged.
        """
        self._write(tuple(self._held))

    def save(self) -> None:
        """The same as `update`."""
        self.update()

    def _write_summary(self) -> None:
        self._write(("summary",))

    def _write(self, names: Iterable[str]) -> None:
        """Write the changes of these held values to the server, then pull the run."""
        held = {name: self._held[name] for name in names if name in self._held}
        edit = edits.edit_of(edits.changes(held, self._fact, self._document))
        if edit:
            edits.write(self._api.session, [self._address], edit)
            self._pull_written(held)

    @property
    def _held(self) -> dict[str, Any]:
        """Values that were read and may have been changed, or were set. Most runs of a list never have any."""
        if self._own is None:
            self._own = {}
        return self._own

    def _pull_written(self, written: Iterable[str] = ()) -> None:
        """Pull the run into the mirror and show its new state; fields not in `written` keep their unsaved changes."""
        written = set(written)
        held = {key: value for key, value in self._held.items() if key not in written}
        changes = edits.changes(held, self._fact, self._document)
        self._api.session.pull_written([self._address])
        self._reload(changes)

    def _reload(self, changes: Changes | None = None) -> None:
        snapshot = self._api.newest()
        address = snapshot.address(str(self._address), None, deleted=True)
        self._page, self._row = RunPage(snapshot, [address.rid], address.key), snapshot.named([address.rid])[0]
        edits.carry_over(changes or Changes(), self._held, self._fact, self._document)

    def _document(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = self._page.document(self._row[0], name)
        return document

    def _editable(self, column: str) -> str | None:
        own = self._own
        value: str | None = self._fact(column) if own is None or column not in own else own[column]
        return value
