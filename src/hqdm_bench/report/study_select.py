"""Which cells a suite's comparisons set side by side, and reading them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hqdm_bench.catalogue import Bits, Catalogue, Cell, Comparison, Layout, Suite, SuiteModel
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.results import common_protocol, read_cell
from hqdm_bench.report.study import STUDENT_KEYS, STUDY_KEYS, Arm, Group

__all__ = ["Selection", "read_group", "read_study", "selections"]


@dataclass(frozen=True)
class Selection:
    """Cells of one group, not read yet: one tuple of seeds a method."""

    entry: SuiteModel
    bits: Bits
    baseline: tuple[Cell, ...]
    methods: tuple[tuple[Cell, ...], ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell in it."""
        return tuple(itertools.chain(self.baseline, *self.methods))


def selections(
    suite: Suite, model: str | None = None, bits: Bits | None = None
) -> tuple[Selection, ...]:
    """What a suite compares, by model, bit-width and comparison.

    A comparison may lack a model or bit-width, and a method one of those its baseline has.

    Args:
        suite: whose ``comparisons``.
        model: only this one; None takes all.
        bits: only these; None takes all.

    Raises:
        BenchError: the suite compares nothing there, or a method it compares has no cell at all.
    """
    found, missing = [], set()
    entries = suite.models if model is None else (suite.model(model),)
    for comparison in suite.comparisons:
        parts = [
            part
            for entry in entries
            for width in dict.fromkeys(cell.bits for cell in entry.students)
            if bits in (None, width) and (part := _select(entry, comparison, width))
        ]
        held = {cell.method for part in parts for cell in part.cells}
        if model is None and bits is None:
            missing |= {comparison.baseline, *comparison.methods} - held
        found += parts
    if missing or not found:
        where = "" if bits is None else f" on {model} at {bits.label}"
        lacking = f": no cells of {', '.join(sorted(missing))}" if missing else ""
        raise BenchError(
            f"suite '{suite.name}' has no pair to compare{where}{lacking}; see 'compare' and "
            f"'cells' in config/suites/{suite.name}.yaml"
        )
    return tuple(sorted(found, key=lambda part: _place(suite, part)))


def _select(entry: SuiteModel, comparison: Comparison, bits: Bits) -> Selection | None:
    def seeds(method: str) -> tuple[Cell, ...]:
        return tuple(c for c in entry.students if (c.method, c.bits) == (method, bits))

    baseline = seeds(comparison.baseline)
    methods = tuple(filter(None, map(seeds, comparison.methods)))
    return Selection(entry, bits, baseline, methods) if baseline and methods else None


def _place(suite: Suite, part: Selection) -> tuple[int, int]:
    """Models as in the suite, and bit-widths as in its cells."""
    widths = list(dict.fromkeys(cell.bits for cell in suite.cells))
    return suite.models.index(part.entry), widths.index(part.bits)


def read_group(
    root: Path, catalogue: Catalogue, part: Selection, keys: Sequence[str] | None = None
) -> Group:
    """Read the results of a selection.

    Args:
        root: project folder.
        catalogue: for titles.
        part: which cells.
        keys: quantities; None takes those of a study, of which a model without images has only
            the noise error.

    Raises:
        BenchError: a result is missing, damaged or another cell's, a quantity needs images that
            are not drawn, or results were scored under different protocols.
    """
    wanted = tuple(keys or (STUDY_KEYS if part.entry.images else STUDENT_KEYS))
    layout = Layout(root)

    def arm(cells: Sequence[Cell]) -> Arm:
        scored = part.entry.images and bool(set(wanted) - set(STUDENT_KEYS))
        results = tuple(read_cell(layout, cell, scored, with_history=False) for cell in cells)
        return Arm(catalogue.method(cells[0].method).title, results)

    group = Group(
        catalogue.model(part.entry.model),
        part.bits,
        arm(part.baseline),
        tuple(map(arm, part.methods)),
        wanted,
    )
    if set(wanted) - set(STUDENT_KEYS):
        common_protocol(group.results)
    return group


def read_study(root: Path, suite: Suite, catalogue: Catalogue) -> tuple[Group, ...]:
    """Every group of a suite, with all quantities it has; errors as in `read_group`."""
    return tuple(read_group(root, catalogue, part) for part in selections(suite))
