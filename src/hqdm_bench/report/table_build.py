"""Filling a table of the paper from a suite's results."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hqdm_bench.catalogue import Bits, Catalogue, Layout, ModelSpec, Suite
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.acceptance import read_acceptance
from hqdm_bench.report.best import leaders
from hqdm_bench.report.estimates import (
    PairedDifference,
    Sample,
    compare,
    estimate,
    itself,
    verdict,
)
from hqdm_bench.report.footprint import (
    OFFICIAL,
    assign_marks,
    footprint,
    layers_text,
    policy_of,
    same_layers,
)
from hqdm_bench.report.paper import PAPER_TITLES, PaperRow, is_the_papers, paper_rows
from hqdm_bench.report.quantities import DIAGNOSTICS, EXTRAS, quantity
from hqdm_bench.report.results import CellResult, ResultSet, common_protocol
from hqdm_bench.report.samples import sample
from hqdm_bench.report.table_model import Row, Table
from hqdm_bench.report.table_notes import (
    best_notes,
    comparison_notes,
    coverage_line,
    engine_notes,
    interval_notes,
    notes,
    protocol_line,
)
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
    paper = paper_rows(root, number)
    return tuple(
        _build(number, spec, paper, results, catalogue, _accepted(root, results.suite, spec))
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
    paper: Sequence[PaperRow],
    results: ResultSet,
    catalogue: Catalogue,
    accepted: tuple[str, ...],
) -> Table:
    own = _own_results(number, spec, results)
    protocol, extractor = common_protocol(own)
    comparable = is_the_papers(spec, protocol, extractor)
    table, layers = TABLES[number], _other_layers(own)
    extras = _extras(own)
    keys = (*table.metrics, *DIAGNOSTICS, *extras)
    rows = _rows(number, spec, paper, own, catalogue, layers, keys)
    comparisons = _comparisons(own, table.pairs, keys, catalogue)
    caption = (
        f"Table {number} of the paper on suite {results.suite.name}: {table.subject} (paper) and "
        f"{spec.title} (ours)."
    )
    if not comparable:
        caption += " Paper values: another experiment, not comparable in absolute value."
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
        coverage=coverage_line([result for result in own if _key(result) not in layers]),
        notes=_layer_notes(layers)
        + accepted
        + notes(
            spec,
            protocol,
            extractor["name"],
            comparable,
            interval_notes(value for row in rows for value in row.ours.values()) + best_notes(rows),
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


def _rows(
    number: int,
    spec: ModelSpec,
    paper: Sequence[PaperRow],
    own: Sequence[CellResult],
    catalogue: Catalogue,
    layers: Mapping[tuple[str, Bits], str],
    keys: Sequence[str],
) -> tuple[Row, ...]:
    """The paper's rows in its order, bit-width by bit-width, ours-only rows behind them."""
    places: dict[tuple[Bits, str, int | None], PaperRow | None] = {
        (row.bits, _own_name(row), row.order): row for row in paper
    }
    for result in own:
        places.setdefault((result.cell.bits, result.cell.method, _order(number, result)), None)
    widths = list(dict.fromkeys(row.bits for row in paper))
    widths += sorted({bits for bits, _, _ in places} - set(widths), reverse=True)
    samples = {
        (bits, method): {key: _sample(own, method, bits, key) for key in keys}
        for bits, method, _ in places
    }
    best = leaders(samples)
    rows, marks = [], assign_marks(layers.values())
    for (bits, method, order), row in sorted(
        places.items(), key=lambda place: (widths.index(place[0][0]), place[0][2] or 0)
    ):
        students = [r for r in own if _key(r) == (method, bits)]
        text = layers.get((method, bits), "")
        rows.append(
            Row(
                method=method,
                title=catalogue.method(method).title
                if students
                else PAPER_TITLES[_paper_name(method)],
                bits=bits,
                order=order,
                paper=row.values if row else {},
                ours={
                    key: found
                    for key, values in samples[bits, method].items()
                    if (found := estimate(itself, values)) is not None
                },
                seeds=tuple(result.cell.seed for result in students),
                footprint=footprint(students),
                layers=text,
                mark=marks.get(text, ""),
                best=best.get((bits, method), frozenset()),
            )
        )
    return tuple(rows)


def _other_layers(own: Sequence[CellResult]) -> dict[tuple[str, Bits], str]:
    """(method, bits) whose layer choice is not the table's, with that choice in words.

    The table's is that of its first student under the official policy, or else of its first.
    """
    students = [result for result in own if result.training is not None]
    official = (result for result in students if policy_of(result) == OFFICIAL)
    usual = next(official, students[0] if students else None)
    return {
        _key(result): layers_text(result)
        for result in students
        if usual is not None and not same_layers(result, usual)
    }


def _layer_notes(layers: Mapping[tuple[str, Bits], str]) -> tuple[str, ...]:
    """What the footnote marks stand for."""
    return tuple(
        f"{mark} Not the layers of the rows without a mark: {text}."
        for text, mark in assign_marks(layers.values()).items()
    )


def _key(result: CellResult) -> tuple[str, Bits]:
    return result.cell.method, result.cell.bits


def _own_name(row: PaperRow) -> str:
    """Catalogue name of a printed row: Table 4's orders are methods of their own here."""
    return row.method if row.order is None else ORDER_METHODS[row.order]


def _paper_name(method: str) -> str:
    """The inverse: a name of `PAPER_TITLES`."""
    return "hqdm" if method in ORDER_METHODS.values() else method


def _order(number: int, result: CellResult) -> int | None:
    if number != 4:
        return None
    return next(k for k, method in ORDER_METHODS.items() if method == result.cell.method)


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
        difference = compare(_sample(own, left, bits, key), _sample(own, right, bits, key))
        if difference is not None:
            titles = catalogue.method(left).title, catalogue.method(right).title
            word = verdict(difference, quantity(key).higher_is_better, *titles)
            found.append(PairedDifference(left, right, *titles, bits, key, difference, word))
    return tuple(found)


def _extras(own: Sequence[CellResult]) -> tuple[str, ...]:
    """Metrics beyond the paper's that every cell was scored in."""
    scored = [result.metrics["values"] for result in own if result.metrics is not None]
    return tuple(key for key in EXTRAS if all(values.get(key) is not None for values in scored))


def _sample(own: Sequence[CellResult], method: str, bits: Bits, key: str) -> Sample:
    """A quantity per training seed, in the shown unit."""
    return sample((result for result in own if _key(result) == (method, bits)), key)
