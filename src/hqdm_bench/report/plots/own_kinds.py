"""Kinds of this project's own figures."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from hqdm_bench.catalogue import Bits, Cell
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.effects import Span, span
from hqdm_bench.report.plots.error_growth import GrowthPanel, draw_error_growth, read_growth
from hqdm_bench.report.plots.forest import draw_forest
from hqdm_bench.report.plots.levels import Curve, ModelCurves, read_curve
from hqdm_bench.report.plots.outlier_strength import draw_outlier_strength, strength
from hqdm_bench.report.plots.quality_bits import draw_quality_bits
from hqdm_bench.report.plots.quality_cost import draw_quality_cost
from hqdm_bench.report.plots.source import Entry, Kind, Source
from hqdm_bench.report.results import read_own
from hqdm_bench.report.study import STUDENT_KEYS
from hqdm_bench.report.study_select import Selection, read_group, selections

__all__ = ["OWN_KINDS"]

METRIC_KEYS = {"psnr": "psnr_median"}  # as in the catalogue -> as in the tables
Paths = tuple[Path, Path]


def _differences(entry: Entry, source: Source, stem: Path) -> Paths:
    keys = _keys(entry)
    groups = [
        read_group(source.layout.root, source.catalogue, part, keys)
        for part in _compared(entry, source)
    ]
    return draw_forest(groups, keys, source.suite.extractor, stem)


def _difference_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    of_images = bool(set(_keys(entry)) - set(STUDENT_KEYS))
    paths: dict[Path, None] = {}  # a cell may be in several comparisons
    for part in _compared(entry, source):
        for cell in part.cells:
            paths[source.layout.training(cell)] = None
            if of_images and part.entry.images:
                paths |= dict.fromkeys(source.scores(cell))
    return tuple(paths)


def _compared(entry: Entry, source: Source) -> tuple[Selection, ...]:
    """What the suite compares on the entry's model and bits."""
    return selections(source.suite, entry["model"], Bits.parse(entry["bits"]))


def _outlier_strength(entry: Entry, source: Source, stem: Path) -> Paths:
    bits, layout = Bits.parse(entry["bits"]), source.layout
    curves: dict[str, dict[float, Span]] = {method: {} for method in entry["methods"]}
    for model, method in itertools.product(entry["models"], entry["methods"]):
        cells = source.seeds(model, method, bits)
        errors = [read_own(layout, layout.training(c), c)["noise_error"] for c in cells]
        curves[method][strength(source.catalogue.model(model))] = span(errors, ratio=True)
    return draw_outlier_strength(curves, source.titles(entry["methods"]), bits.label, stem)


def _strength_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    return tuple(
        source.layout.training(cell)
        for model, method in itertools.product(entry["models"], entry["methods"])
        for cell in source.seeds(model, method, Bits.parse(entry["bits"]))
    )


def _quality_bits(entry: Entry, source: Source, stem: Path) -> Paths:
    models = [_model_curves(model, entry, source) for model in entry["models"]]
    return draw_quality_bits(models, _keys(entry), source.suite.extractor, stem)


def _quality_cost(entry: Entry, source: Source, stem: Path) -> Paths:
    models = [_model_curves(model, entry, source) for model in entry["models"]]
    return draw_quality_cost(models, _keys(entry), source.suite.extractor, stem)


def _model_curves(model: str, entry: Entry, source: Source) -> ModelCurves:
    """Every bit-width of every method of the entry that the suite has for a model."""
    curves = {
        method: Curve(title, read_curve(source.layout, _cells(model, method, source), _keys(entry)))
        for method, title in source.titles(["fp", *entry["methods"]]).items()
    }
    held = {method: curve for method, curve in curves.items() if curve.points}
    return ModelCurves(model, held)


def _quality_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    of_images = bool(set(_keys(entry)) - set(STUDENT_KEYS))
    return tuple(_quality_files(entry, source, of_images))


def _quality_files(entry: Entry, source: Source, of_images: bool) -> Iterator[Path]:
    for method in entry["methods"]:
        if not any(_cells(model, method, source) for model in entry["models"]):
            raise BenchError(
                f"suite '{source.suite.name}' has no cell of method '{method}' on "
                f"{', '.join(entry['models'])}; add it to config/suites/{source.suite.name}.yaml "
                "or take it out of the figure"
            )
    for model, method in itertools.product(entry["models"], ["fp", *entry["methods"]]):
        for cell in _cells(model, method, source):
            if of_images:
                yield from source.scores(cell)
            if not cell.bits.full_precision:
                yield source.layout.training(cell)


def _cells(model: str, method: str, source: Source) -> list[Cell]:
    return [cell for cell in source.suite.model(model).cells if cell.method == method]


def _error_growth(entry: Entry, source: Source, stem: Path) -> Paths:
    titles, panels = source.titles(entry["methods"]), []
    for bits in map(Bits.parse, entry["bits"]):
        curves = {
            method: read_growth(source.layout, source.seeds(entry["model"], method, bits))
            for method in entry["methods"]
        }
        panels.append(GrowthPanel(bits, curves, titles))
    return draw_error_growth(panels, stem)


def _growth_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    return tuple(
        source.layout.metrics(cell)
        for bits in entry["bits"]
        for method in entry["methods"]
        for cell in source.seeds(entry["model"], method, Bits.parse(bits))
    )


def _keys(entry: Entry) -> list[str]:
    """Quantities of an entry under the names that results have."""
    return [METRIC_KEYS.get(metric, metric) for metric in entry["metrics"]]


QUALITY = frozenset({"models", "methods", "metrics"})
OWN_KINDS = {
    "differences": Kind(frozenset({"model", "bits", "metrics"}), _difference_inputs, _differences),
    "outlier_strength": Kind(
        frozenset({"models", "methods", "bits"}), _strength_inputs, _outlier_strength
    ),
    "quality_bits": Kind(QUALITY, _quality_inputs, _quality_bits),
    "error_growth": Kind(frozenset({"model", "methods", "bits"}), _growth_inputs, _error_growth),
    "quality_cost": Kind(QUALITY, _quality_inputs, _quality_cost),
}
