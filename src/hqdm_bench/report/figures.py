"""Figures of a suite: an entry of its catalogue in, a pdf and a png out."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqdm_bench.catalogue import Bits, Catalogue, Cell, Suite
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.channel_maxima import draw_channel_maxima, read_channel_maxima
from hqdm_bench.report.effects import Span, span
from hqdm_bench.report.forest import draw_forest
from hqdm_bench.report.loss_curve import LossPanel, draw_loss_curve, read_losses
from hqdm_bench.report.outlier_strength import draw_outlier_strength, strength
from hqdm_bench.report.results import need, read_own
from hqdm_bench.report.sample_grid import draw_sample_grid, read_panel
from hqdm_bench.report.study_select import Selection, read_group, selections
from hqdm_bench.report.weight_rotation import draw_weight_rotation, read_weights

__all__ = ["figure_inputs", "write_figure"]

METRIC_KEYS = {"psnr": "psnr_median"}  # as in the catalogue -> as in the tables

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """Where a figure takes its numbers from."""

    layout: Layout
    suite: Suite
    catalogue: Catalogue

    def outliers(self, entry: Entry) -> Path:
        """Channel maxima of the entry's model."""
        return self.layout.outliers(self.suite.name, entry["model"])

    def seeds(self, entry: Entry, method: str, bits: Bits) -> list[Cell]:
        """The cells of one curve.

        Raises:
            BenchError: the suite trains no such student.
        """
        cells = self.suite.model(entry["model"]).cells
        found = [cell for cell in cells if (cell.method, cell.bits) == (method, bits)]
        if not found:
            raise BenchError(
                f"suite '{self.suite.name}' has no cell {entry['model']}/{method}/{bits}; add it "
                f"to config/suites/{self.suite.name}.yaml or take it out of the figure"
            )
        return found

    def compared(self, entry: Entry) -> tuple[Selection, ...]:
        """What the suite compares on the entry's model and bits.

        Raises:
            BenchError: it compares nothing there.
        """
        return selections(self.suite, entry["model"], Bits.parse(entry["bits"]))

    def shards(self, entry: Entry, panel: Entry) -> list[Path]:
        """All shards of a panel's cell, in order."""
        bits = Bits.parse(panel["bits"])
        cell = self.suite.cell(entry["model"], panel["method"], bits, panel["seed"])
        count = self.catalogue.protocol(cell.protocol).shards
        return [self.layout.shard(cell, shard) for shard in range(count)]


def figure_inputs(name: str, root: Path, suite: Suite, catalogue: Catalogue) -> tuple[Path, ...]:
    """Every file a figure reads, for the workflow.

    Raises:
        BenchError: no such figure, unknown kind, or cells the suite does not have.
    """
    entry = _entry(name, suite)
    return _kind(name, entry).inputs(entry, Source(Layout(root), suite, catalogue))


def write_figure(name: str, root: Path, suite: Suite, catalogue: Catalogue) -> tuple[Path, Path]:
    """Write ``figures/{suite}/{name}.pdf`` and ``.png``.

    Args:
        name: key of the suite's figures, for example ``fig04_loss``.
        root: project folder with ``results``.
        suite: whose results.
        catalogue: for titles and protocols.

    Returns:
        The pdf and the png.

    Raises:
        BenchError: no such figure, unknown kind, or a result that is missing or damaged.
    """
    for path in figure_inputs(name, root, suite, catalogue):
        need(root, path)
    entry, layout = _entry(name, suite), Layout(root)
    stem = layout.figure(suite.name, name, "pdf").with_suffix("")
    return _kind(name, entry).draw(entry, Source(layout, suite, catalogue), stem)


def _channel_maxima(entry: Entry, source: Source, stem: Path) -> tuple[Path, Path]:
    panels = read_channel_maxima(source.outliers(entry), entry["layers"], entry["steps"])
    return draw_channel_maxima(panels, stem)


def _weight_rotation(entry: Entry, source: Source, stem: Path) -> tuple[Path, Path]:
    before, after = read_weights(source.outliers(entry), entry["layer"])
    return draw_weight_rotation(entry["layer"], before, after, stem)


def _loss_curve(entry: Entry, source: Source, stem: Path) -> tuple[Path, Path]:
    panels = []
    for text in entry["bits"]:
        bits = Bits.parse(text)
        curves, titles = {}, {}
        for method in entry["methods"]:
            cells = source.seeds(entry, method, bits)
            curves[method] = read_losses([source.layout.history(c) for c in cells], entry["step"])
            titles[method] = source.catalogue.method(method).title
        panels.append(LossPanel(bits, curves, titles))
    return draw_loss_curve(panels, entry["step"], stem)


def _sample_grid(entry: Entry, source: Source, stem: Path) -> tuple[Path, Path]:
    panels = []
    for panel in entry["panels"]:
        bits = Bits.parse(panel["bits"])
        title = source.catalogue.method(panel["method"]).title
        title = "Full precision" if bits.full_precision else f"{title} {bits.label}"
        panels.append(read_panel(title, source.shards(entry, panel), entry["images"]))
    return draw_sample_grid(panels, stem)


def _differences(entry: Entry, source: Source, stem: Path) -> tuple[Path, Path]:
    keys = [METRIC_KEYS.get(metric, metric) for metric in entry["metrics"]]
    groups = [
        read_group(source.layout.root, source.catalogue, part, keys)
        for part in source.compared(entry)
    ]
    return draw_forest(groups, keys, source.suite.extractor, stem)


def _outlier_strength(entry: Entry, source: Source, stem: Path) -> tuple[Path, Path]:
    bits, layout = Bits.parse(entry["bits"]), source.layout
    curves: dict[str, dict[float, Span]] = {method: {} for method in entry["methods"]}
    for model, method in itertools.product(entry["models"], entry["methods"]):
        cells = source.seeds({"model": model}, method, bits)
        errors = [read_own(layout, layout.training(c), c)["noise_error"] for c in cells]
        curves[method][strength(source.catalogue.model(model))] = span(errors, ratio=True)
    titles = {method: source.catalogue.method(method).title for method in curves}
    return draw_outlier_strength(curves, titles, bits.label, stem)


def _outlier_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    return (source.outliers(entry),)


def _loss_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    return tuple(
        source.layout.history(cell)
        for bits in entry["bits"]
        for method in entry["methods"]
        for cell in source.seeds(entry, method, Bits.parse(bits))
    )


def _difference_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    parts = source.compared(entry)
    files = (part.files(source.layout, entry["metrics"]) for part in parts)
    return tuple(dict.fromkeys(itertools.chain.from_iterable(files)))


def _strength_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    return tuple(
        source.layout.training(cell)
        for model, method in itertools.product(entry["models"], entry["methods"])
        for cell in source.seeds({"model": model}, method, Bits.parse(entry["bits"]))
    )


def _sample_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    return tuple(path for panel in entry["panels"] for path in source.shards(entry, panel))


@dataclass(frozen=True)
class Kind:
    """A kind of figure: the keys its entry must have, what it reads, how it is drawn."""

    keys: frozenset[str]
    inputs: Callable[[Entry, Source], tuple[Path, ...]]
    draw: Callable[[Entry, Source, Path], tuple[Path, Path]]


KINDS = {
    "channel_maxima": Kind(frozenset({"layers", "steps"}), _outlier_inputs, _channel_maxima),
    "weight_rotation": Kind(frozenset({"layer"}), _outlier_inputs, _weight_rotation),
    "loss_curve": Kind(frozenset({"step", "bits", "methods"}), _loss_inputs, _loss_curve),
    "sample_grid": Kind(frozenset({"panels", "images"}), _sample_inputs, _sample_grid),
    "differences": Kind(frozenset({"model", "bits", "metrics"}), _difference_inputs, _differences),
    "outlier_strength": Kind(
        frozenset({"models", "methods", "bits"}), _strength_inputs, _outlier_strength
    ),
}


def _entry(name: str, suite: Suite) -> Entry:
    if name not in suite.figures:
        known = ", ".join(suite.figures)
        raise BenchError(f"suite '{suite.name}' has no figure '{name}'; it has {known}")
    return suite.figures[name]


def _kind(name: str, entry: Entry) -> Kind:
    kind = KINDS.get(entry["kind"])
    if kind is None:
        known = ", ".join(KINDS)
        raise BenchError(f"figure {name}: unknown kind '{entry['kind']}'; known: {known}")
    lacking = sorted(kind.keys - entry.keys())
    if lacking:
        raise BenchError(f"figure {name}: a {entry['kind']} needs '{lacking[0]}'")
    return kind
