"""A run whose history is compared: how far, and what the comparison means as findings."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from msgspec import Struct

from mirror.store.records import KnownRun, RunRecord
from mirror.verify import runs
from mirror.verify.findings import Finding, Level
from mirror.verify.history import Compared


class Look(Struct, frozen=True):
    """A run to compare. `moved` is why the server is ahead, if it is; `suspicions` are reasons to read its history."""

    record: RunRecord
    known: KnownRun
    moved: str | None
    suspicions: tuple[str, ...]

    def findings(self, compared: Compared, *, lost: bool) -> Iterable[Finding]:
        """Yield the differences of the mirrored history; with `lost`, values of it are known to be damaged."""
        run_id = self.known.run_id
        if self.known.error:
            missing = f"failed, will be retried: {self.known.error}"
        elif lost:
            missing = "lost from the file: it was damaged or changed"
        else:
            missing = "never pulled, or lost from the file with its count"
        differs = Level.DIFFERS, run_id
        for position, rows in sorted(compared.missing.items()):
            server = f"{rows}"
            where = {"start": "at the start", "end": "at the end"}.get(position, "in the middle")
            yield Finding(*differs, "history rows", f"none of them, {where}", server, missing, flush=(run_id,))
        if compared.extra:
            mirror = f"{reduce(lambda some, more: some.and_(more), compared.extra.values())}"
            cause = "truncated on the server without moving a timestamp, or written into the file"
            yield Finding(*differs, "history rows", mirror, "none of them", cause, flush=(run_id,))
        causes = {
            "missing": missing,
            "extra": "deleted on the server without a trace, or written into the file",
            "changed": "changed in the file, or on the server after it was pulled",
        }
        for (key, kind), values in compared.differ.items():
            at = f"at step {values.first}" + (f", the first of {values.values:,}" if values.values > 1 else "")
            mirror, server = (runs.shown(value) for value in (values.mirror, values.server))
            yield Finding(*differs, f"history.{key}", f"{mirror} {at}", server, causes[kind], flush=(run_id,))

    @property
    def end(self) -> int:
        """The last step to compare; steps logged after the last pass are left out."""
        mirrored = -1 if self.known.last_step is None else self.known.last_step
        if self.moved:
            return mirrored
        server = self.record.server_last_step
        return max(mirrored, -1 if server is None else server)

    @property
    def rows(self) -> int:
        """The number of lines to expect."""
        return max(self.known.rows, 1) if self.moved else max(self.record.server_rows, self.known.rows, 1)
