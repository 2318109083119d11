"""Filling a table of the paper from a suite's results."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from hqdm_bench.catalogue import Catalogue, Layout, ModelSpec, Suite
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.acceptance import read_acceptance
from hqdm_bench.report.estimates import PairedDifference, compare, verdict
from hqdm_bench.report.paper import is_the_papers
from hqdm_bench.report.quantities import DIAGNOSTICS, EXTRAS, quantity
from hqdm_bench.report.quoted import QuotedRow, quoted_rows
from hqdm_bench.report.results import CellResult, ResultSet, common_protocol
from hqdm_bench.report.table_model import Table
from hqdm_bench.report.table_notes import (
    best_notes,
    comparison_notes,
    coverage_line,
    engine_notes,
    interval_notes,
    notes,
    protocol_line,
    source_notes,
)
from hqdm_bench.report.table_rows import mark_notes, other_layers, row_of, row_sample, table_rows
from hqdm_bench.report.table_specs import ORDER_METHODS, TABLES, order_variants, table_models

__all__ = ["build_tables"]


def build_tables(
    number: int, root: Path, results: ResultSet, catalogue: Catalogue
) -> tuple[Table, ...]:
    """One table per model of the suite that stands for the paper's data set.

    Args:
        number: 1 to 4.
        root: project folder with ``paper/data``.
        results: at least the cells of those models.
        catalogue: for titles and model sources.

    Raises:
        BenchError: nothing to show, or results made under differing protocols or extractors.
    """
    models = table_models(number, results.suite, catalogue)
    quoted = quoted_rows(root, number)
    return tuple(
        _build(number, spec, quoted, results, catalogue, _accepted(root, results.suite, spec))
        for spec in models
    )


def _accepted(root: Path, suite: Suite, spec: ModelSpec) -> tuple[str, ...]:
    """What the full-precision baselines say, for a model of which something is expected."""
    if not any(baseline.expect for baseline in suite.model(spec.name).baselines):
        return ()
    return (read_acceptance(Layout(root).acceptance(suite.name, spec.name)).sentence(),)


def _build(
    number: int,
    spec: ModelSpec,
    quoted: Sequence[QuotedRow],
    results: ResultSet,
    catalogue: Catalogue,
    accepted: tuple[str, ...],
) -> Table:
    own = _own_results(number, spec, results)
    protocol, extractor = common_protocol(own)
    comparable = is_the_papers(spec, protocol, extractor)
    table, layers = TABLES[number], other_layers(own)
    extras = _extras(own)
    keys = (*table.metrics, *DIAGNOSTICS, *extras)
    rows = table_rows(number, quoted, own, catalogue, keys)
    comparisons = _comparisons(own, table.pairs, keys, catalogue)
    caption = (
        f"Table {number} of the paper on suite {results.suite.name}: {table.subject} (paper) and "
        f"{spec.title} (measured)."
    )
    if not comparable:
        caption += " Quoted values: other experiments, not comparable in absolute value."
    return Table(
        number=number,
        suite=results.suite.name,
        model=spec,
        extractor=extractor["name"],
        comparable=comparable,
        caption=caption,
        metrics=table.metrics,
        diagnostics=tuple(DIAGNOSTICS),
        extras=extras,
        rows=rows,
        comparisons=comparisons,
        protocol=protocol_line(protocol, extractor),
        coverage=coverage_line([result for result in own if row_of(result) not in layers]),
        notes=mark_notes(own)
        + accepted
        + source_notes(rows)
        + notes(
            spec,
            protocol,
            extractor["name"],
            comparable,
            interval_notes(value for row in rows for value in row.measured.values())
            + best_notes(rows),
            next((r.metrics.get("bias") or {} for r in own if r.metrics is not None), {}),
        )
        + engine_notes(own, {name: spec.title for name, spec in catalogue.methods.items()}),
        comparison_notes=comparison_notes(entry.difference for entry in comparisons),
    )


def _own_results(number: int, spec: ModelSpec, results: ResultSet) -> tuple[CellResult, ...]:
    """The model's cells that belong into this table."""
    variants = order_variants()
    found = results.select(model=spec.name)
    if number == 4:
        widths = {r.cell.bits for r in found if r.cell.method in variants}
        found = tuple(
            r for r in found if r.cell.method in ORDER_METHODS.values() and r.cell.bits in widths
        )
    else:
        found = tuple(r for r in found if r.cell.method not in variants)
    if not found:
        raise BenchError(
            f"suite '{results.suite.name}' has no cell of {spec.name} for table {number}; "
            f"drop {number} from 'tables' in config/suites/{results.suite.name}.yaml or add cells"
        )
    return found


def _comparisons(
    own: Sequence[CellResult],
    pairs: Iterable[tuple[str, str]],
    keys: Sequence[str],
    catalogue: Catalogue,
) -> tuple[PairedDifference, ...]:
    """Paired differences per bit-width, over the seeds both methods have."""
    found = []
    for bits, (left, right), key in itertools.product(
        dict.fromkeys(result.cell.bits for result in own), pairs, keys
    ):
        difference = compare(row_sample(own, left, bits, key), row_sample(own, right, bits, key))
        if difference is not None:
            titles = catalogue.method(left).title, catalogue.method(right).title
            word = verdict(difference, quantity(key).higher_is_better, *titles)
            found.append(PairedDifference(left, right, *titles, bits, key, difference, word))
    return tuple(found)


def _extras(own: Sequence[CellResult]) -> tuple[str, ...]:
    """Metrics beyond the paper's that every cell was scored in."""
    scored = [result.metrics["values"] for result in own if result.metrics is not None]
    return tuple(key for key in EXTRAS if all(values.get(key) is not None for values in scored))
