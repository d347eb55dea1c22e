"""History that the server has exported to Parquet: its addresses, and its values without a Python object for each.

A file is wide: one column per key. Signed addresses expire, and their order means nothing; files may overlap, and steps
may be missing from them, so their content is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from msgspec import Struct

from mirror.errors import CommError
from mirror.metrics import STEP
from mirror.remote import queries
from mirror.remote.client import FeatureMissing, Server
from mirror.remote.json_history import KeyGlobs
from mirror.remote.json_history_fast import EXACT, page_of, series_of
from mirror.remote.sink import Source
from mirror.store.records import HistoryPage, ProjectKey
from mirror.wandb_json import UNREADABLE, loads, unreadable

FEATURE = "parquetHistory"

PAGE_VALUES = 500_000
"""About this many values in one page, whatever the size of a file; this bounds the memory."""


STEPS_AT_ONCE = 1_000_000

READ_BYTES = 1 << 20
"""Bytes of each column that are read from a file at once."""


class Export(Struct, frozen=True):
    """The addresses of a run's exported history, and the steps that are not exported yet."""

    urls: tuple[str, ...]
    live_steps: tuple[int, ...]


async def find(server: Server, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, Export]:
    """Return the export of each run that has one, from one request; a server without the feature is asked only once."""
    if FEATURE in server.missing_features or not run_ids:
        return {}
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project}
    variables |= {f"run{index}": run_id for index, run_id in enumerate(run_ids)}
    try:
        document = queries.exports(len(run_ids))
        data = await server.graphql("MirrorExports", document, variables, bulk=True, divisible=True)
    except FeatureMissing:
        server.missing_features.add(FEATURE)
        return {}
    found = data.get("project") or {}
    exports = {}
    for index, run_id in enumerate(run_ids):
        answer = (found.get(f"r{index}") or {}).get("parquetHistory") or {}
        if urls := answer.get("parquetUrls"):
            exports[run_id] = Export(tuple(urls), tuple(sorted(map(_step, answer.get("liveData") or ()))))
    return exports


def _step(row: Any) -> int:
    try:
        return int((loads(row) if isinstance(row, str) else row)[STEP])
    except UNREADABLE as error:
        raise unreadable("a live step of an export", error) from error


class Part(Struct, frozen=True):
    """A downloaded file, the steps to use of it, `first` to `last`, and their number of rows and values.

    `table` is its content if it was read at once: opening a small file takes a quarter of the time of reading it.
    """

    source: Source
    first: int
    last: int
    rows: int
    values: int
    table: Any = None


def parts(sources: Sequence[Source], first: int, keys: KeyGlobs, *, at_once: int = 0) -> list[Part] | None:
    """Return the files in the order of their steps, without steps before `first` and without those of an earlier file.

    Files of at most `at_once` values together are read completely. None if they cannot be used: a key has values other
    than numbers (an export does not distinguish text from JSON) or integers past 2^53, steps do not rise, or files are
    interleaved.
    """
    import pyarrow as pa

    opened: list[Part] = []
    room = at_once
    for source in sources:
        try:
            with _opened(source) as file:
                names = file.schema_arrow.names
                columns = sum(name in keys for name in names)
                if not _is_plain(file, keys):
                    return None
                room -= file.metadata.num_rows * columns
                table = file.read(columns=_wanted(names, keys), use_threads=False) if room >= 0 else None
                extent = _extent(_steps(file) if table is None else table.select([STEP]).to_batches(), first)
        except (pa.ArrowException, OSError):
            return None
        if extent is None:
            return None
        begin, last, rows = extent
        if rows:
            opened.append(Part(source, begin, last, rows, rows * columns, table))
    opened.sort(key=lambda part: (part.first, part.last))
    return opened if all(one.last < other.first for one, other in pairwise(opened)) else _deduplicated(opened)


def _opened(source: Source) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if isinstance(source, bytes):
        return pq.ParquetFile(pa.BufferReader(source), pre_buffer=False)
    # The default reads whole row groups ahead, which may be as large as the file.
    return pq.ParquetFile(source, pre_buffer=False, buffer_size=READ_BYTES)


def _wanted(names: Sequence[str], keys: KeyGlobs) -> list[str]:
    return [name for name in names if name == STEP or name in keys]


def _steps(file: Any) -> Iterator[Any]:
    return iter(file.iter_batches(batch_size=STEPS_AT_ONCE, columns=[STEP], use_threads=False))


def _extent(batches: Iterable[Any], first: int) -> tuple[int, int, int] | None:
    """Return the first and last step from `first` on, and the number of steps; None if steps do not rise."""
    import pyarrow as pa
    import pyarrow.compute as pc

    begin, last, rows = first, -1, 0
    for batch in batches:
        steps: Any = batch.column(STEP).cast(pa.int64())
        if not len(steps):
            continue
        if (
            steps.null_count
            or steps[0].as_py() <= last
            or not pc.all(pc.greater(steps[1:], steps[:-1]), min_count=0).as_py()
        ):
            return None
        wanted = steps if steps[0].as_py() >= first else steps.filter(_from(first, steps))
        last = steps[-1].as_py()
        if len(wanted):
            begin = begin if rows else wanted[0].as_py()
            rows += len(wanted)
    return begin, last, rows


def _deduplicated(overlapping: Sequence[Part]) -> list[Part] | None:
    """Return each file without the steps of the one before; None if that would lose a step."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept: list[Part] = []
    seen = []
    for part in overlapping:
        table = part.table
        if table is None:
            with _opened(part.source) as file:
                table = file.read(columns=[STEP], use_threads=False)
        steps: Any = table[STEP].combine_chunks().cast(pa.int64())
        seen.append(steps.filter(_from(part.first, steps)))
        new = steps.filter(_from(kept[-1].last + 1 if kept else part.first, steps))
        if len(new):
            columns = part.values // part.rows
            values = len(new) * columns
            kept.append(Part(part.source, new[0].as_py(), new[-1].as_py(), len(new), values, part.table))
    return kept if sum(part.rows for part in kept) == len(pc.unique(pa.chunked_array(seen))) else None


def _from(first: int, steps: Any) -> Any:
    """Return a mask of the steps that are `first` or later."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.greater_equal(steps, pa.scalar(first, pa.int64()))


def _is_plain(file: Any, keys: KeyGlobs) -> bool:
    """Return True if the file has steps, and plain numbers under every wanted key."""
    import pyarrow as pa

    names = file.schema_arrow.names
    for index, field in enumerate(file.schema_arrow):
        if pa.types.is_nested(field.type):
            return False
        if field.name not in keys and field.name != STEP:
            continue
        if pa.types.is_integer(field.type):
            if field.name != STEP and not all(
                _is_exact(file.metadata.row_group(group).column(index)) for group in range(file.num_row_groups)
            ):
                return False
        elif not pa.types.is_floating(field.type):
            return False
    return STEP in names


def _is_exact(chunk: Any) -> bool:
    """Return True if a column chunk's statistics show that a DOUBLE represents all its integers exactly."""
    statistics = chunk.statistics
    if statistics is None or not statistics.has_min_max:
        return bool(statistics is not None and statistics.num_values == 0)
    return bool(-EXACT <= statistics.min <= statistics.max <= EXACT)


def pages(run_id: str, part: Part, keys: KeyGlobs) -> Iterator[HistoryPage]:
    """Yield the values of a file in pages of some rows. Raises CommError for a file that cannot be read."""
    import pyarrow as pa

    try:
        if part.table is not None:
            yield from _pages(run_id, part.first, part.table.combine_chunks().to_batches())
            return
        with _opened(part.source) as file:
            names = _wanted(file.schema_arrow.names, keys)
            rows = max(1000, PAGE_VALUES // len(names))
            batches = file.iter_batches(batch_size=rows, columns=names, use_threads=False)
            yield from _pages(run_id, part.first, batches)
    except (pa.ArrowException, OSError) as error:
        raise CommError(f"the export of {run_id} cannot be read ({error})", error) from error


def _pages(run_id: str, first: int, batches: Iterable[Any]) -> Iterator[HistoryPage]:
    import pyarrow as pa

    for whole in batches:
        batch, steps = whole, whole.column(STEP).cast(pa.int64())
        if not len(steps) or steps[-1].as_py() < first:
            continue
        if steps[0].as_py() < first:
            batch = whole.filter(_from(first, steps))
            steps = batch.column(STEP).cast(pa.int64())
        series = []
        for name in batch.schema.names:
            column = batch.column(name)
            if name != STEP and column.null_count < len(column):
                one = series_of(name, steps, column)
                assert one is not None, "parts() has checked the integers"
                series.append(one)
        yield page_of(run_id, series, rows=len(steps), last_step=steps[-1].as_py())
