"""Report `methods` as tables of text: ranks and values, and what each student costs."""

import re
from collections.abc import Mapping

from hqdm_bench.report.footprint import assign_marks
from hqdm_bench.report.method_cost import MethodCost
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.side_by_side import Entry, ModelGroup
from hqdm_bench.report.study_text import COST_COLUMNS, cost_cells
from hqdm_bench.report.table_notes import thousands
from hqdm_bench.report.table_text import (
    BLANK,
    Column,
    Strong,
    TextTable,
    bits_text,
    interval_text,
    number,
)

__all__ = ["cost_table", "marks_of", "rank_table"]

NUMBERED = re.compile(r"^\d+ ")
LEADING = (Column.plain("W/A"), Column.plain("Method", numeric=False))
RUN_COLUMNS = (
    Column("Time (s)", "", ("time", "(s)"), numeric=True),
    Column("CPU time (s)", "", ("CPU", "time (s)"), numeric=True),
    Column("Peak memory (MiB)", "", ("peak memory", "(MiB)"), numeric=True),
    Column("Peak GPU memory (MiB)", "", ("on the", "GPU (MiB)"), numeric=True),
    Column("Network inputs seen", "", ("network", "inputs seen"), numeric=True),
    Column("Extra parameters", "", ("extra", "parameters"), numeric=True),
)
STAGES = Column("Time by stage (s)", "", ("time by stage", "(s)"), numeric=False)


def marks_of(group: ModelGroup) -> dict[str, str]:
    """A footnote mark for everything that sets a row of the model apart."""
    return assign_marks(entry.remark for entry in group.entries if entry.remark)


def rank_table(group: ModelGroup, extractor: str) -> TextTable:
    """Places and values of every method, one block a bit-width, best noise error first."""
    marks = marks_of(group)
    columns = [*LEADING, Column.plain("n")]
    for key in group.keys:
        kind = quantity(key)
        head, lines = kind.head(extractor), kind.head_lines(extractor)
        columns.append(Column(f"{head} rank", head, ("rank",), numeric=True))
        columns.append(Column(head, head, (lines[0],), numeric=True))
    blocks = tuple(
        tuple(_rank_cells(group, entry, marks, extractor) for entry in block)
        for block in group.blocks
    )
    caption = f"{group.model.name}: methods by rank at each bit-width."
    return TextTable(caption, tuple(columns), blocks)


def cost_table(group: ModelGroup) -> TextTable:
    """What every student quantizes, and what making and keeping it takes."""
    marks = marks_of(group)
    grids = Column("Grids: weight; input", "", ("grids:", "weight; input"), numeric=False)
    columns = (*LEADING, grids, *COST_COLUMNS, *RUN_COLUMNS, STAGES)
    blocks = tuple(
        tuple(
            (
                *_lead(entry, marks),
                str(entry.granularity),
                *cost_cells(entry.footprint),
                *_run_cells(entry.cost),
            )
            for entry in block
        )
        for block in group.blocks
        if any(entry.footprint for entry in block)
    )
    caption = f"{group.model.name}: what is quantized, and what the students cost."
    shown, left = _without_empty(columns, blocks, first=len(columns) - len(RUN_COLUMNS) - 1)
    return TextTable(caption, shown, left)


def _without_empty(
    columns: tuple[Column, ...], blocks: tuple[tuple[tuple[str, ...], ...], ...], first: int
) -> tuple[tuple[Column, ...], tuple[tuple[tuple[str, ...], ...], ...]]:
    """Drop columns from number ``first`` on in which no row has anything."""
    rows = [row for block in blocks for row in block]
    kept = [
        place
        for place in range(len(columns))
        if place < first or any(row[place] != BLANK for row in rows)
    ]
    shown = tuple(columns[place] for place in kept)
    left = tuple(tuple(tuple(row[place] for place in kept) for row in block) for block in blocks)
    return shown, left


def _lead(entry: Entry, marks: Mapping[str, str]) -> tuple[str, str]:
    return bits_text(entry.bits), entry.title + marks.get(entry.remark, "")


def _rank_cells(
    group: ModelGroup, entry: Entry, marks: Mapping[str, str], extractor: str
) -> tuple[str, ...]:
    cells = [*_lead(entry, marks), str(len(entry.seeds))]
    for key in group.keys:
        rank, value = entry.ranks.get(key), entry.values.get(key)
        text = BLANK if rank is None else str(rank)
        cells.append(Strong(text) if rank is not None and rank.last == 1 else text)
        digits = quantity(key).digits(extractor)
        shown = number(value.mean, digits) + interval_text(value, digits) if value else BLANK
        cells.append(shown)
    return tuple(cells)


def _run_cells(found: MethodCost | None) -> tuple[str, ...]:
    """Cells under `RUN_COLUMNS` and `STAGES`; empty where the run recorded nothing."""
    if found is None:
        return (BLANK,) * (len(RUN_COLUMNS) + 1)
    stages = ", ".join(f"{_words(name)} {value:.1f}" for name, value in found.seconds.items())
    times = (found.total_seconds, found.cpu_seconds)
    counts = (
        found.peak_memory_mb,
        found.peak_gpu_memory_mb,
        found.samples,
        found.extra_parameters,
    )
    return (
        *(BLANK if value is None else f"{value:.1f}" for value in times),
        *(BLANK if value is None else thousands(round(value)) for value in counts),
        stages,
    )


def _words(stage: str) -> str:
    """Its name without the number that says when it came."""
    return NUMBERED.sub("", stage)
