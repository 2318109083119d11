"""Kinds of the paper's figures."""

from pathlib import Path

from hqdm_bench.catalogue import Bits
from hqdm_bench.report.plots.channel_maxima import draw_channel_maxima, read_channel_maxima
from hqdm_bench.report.plots.hadamard_schemes import draw_hadamard_schemes
from hqdm_bench.report.plots.loss_curve import LossPanel, draw_loss_curve, read_losses
from hqdm_bench.report.plots.sample_grid import draw_sample_grid, read_panel
from hqdm_bench.report.plots.source import Entry, Kind, Source
from hqdm_bench.report.plots.weight_rotation import draw_weight_rotation, read_weights

__all__ = ["PAPER_KINDS"]

Paths = tuple[Path, Path]


def _channel_maxima(entry: Entry, source: Source, stem: Path) -> Paths:
    panels = read_channel_maxima(source.outliers(entry), entry["layers"], entry["steps"])
    return draw_channel_maxima(panels, stem)


def _hadamard_schemes(entry: Entry, source: Source, stem: Path) -> Paths:
    path, layer = source.outliers(entry), entry["layer"]
    (inputs,) = read_channel_maxima(path, [layer], [entry["step"]])
    return draw_hadamard_schemes(inputs, *read_weights(path, layer), stem)


def _weight_rotation(entry: Entry, source: Source, stem: Path) -> Paths:
    before, after = read_weights(source.outliers(entry), entry["layer"])
    return draw_weight_rotation(entry["layer"], before, after, stem)


def _loss_curve(entry: Entry, source: Source, stem: Path) -> Paths:
    titles, panels = source.titles(entry["methods"]), []
    for bits in map(Bits.parse, entry["bits"]):
        curves = {}
        for method in entry["methods"]:
            cells = source.seeds(entry["model"], method, bits)
            curves[method] = read_losses([source.layout.history(c) for c in cells], entry["step"])
        panels.append(LossPanel(bits, curves, titles))
    return draw_loss_curve(panels, entry["step"], stem)


def _sample_grid(entry: Entry, source: Source, stem: Path) -> Paths:
    panels = []
    for panel in entry["panels"]:
        bits = Bits.parse(panel["bits"])
        title = source.catalogue.method(panel["method"]).title
        title = "Full precision" if bits.full_precision else f"{title} {bits.label}"
        panels.append(read_panel(title, _shards(entry, panel, source), entry["images"]))
    return draw_sample_grid(panels, stem)


def _shards(entry: Entry, panel: Entry, source: Source) -> list[Path]:
    """All shards of a panel's cell, in order."""
    bits = Bits.parse(panel["bits"])
    cell = source.suite.cell(entry["model"], panel["method"], bits, panel["seed"])
    count = source.catalogue.protocol(cell.protocol).shards
    return [source.layout.shard(cell, shard) for shard in range(count)]


def _outlier_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    return (source.outliers(entry),)


def _loss_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    return tuple(
        source.layout.history(cell)
        for bits in entry["bits"]
        for method in entry["methods"]
        for cell in source.seeds(entry["model"], method, Bits.parse(bits))
    )


def _sample_inputs(entry: Entry, source: Source) -> tuple[Path, ...]:
    return tuple(path for panel in entry["panels"] for path in _shards(entry, panel, source))


PAPER_KINDS = {
    "channel_maxima": Kind(
        frozenset({"model", "layers", "steps"}), _outlier_inputs, _channel_maxima
    ),
    "hadamard_schemes": Kind(
        frozenset({"model", "layer", "step"}), _outlier_inputs, _hadamard_schemes
    ),
    "weight_rotation": Kind(frozenset({"model", "layer"}), _outlier_inputs, _weight_rotation),
    "loss_curve": Kind(frozenset({"model", "step", "bits", "methods"}), _loss_inputs, _loss_curve),
    "sample_grid": Kind(frozenset({"model", "panels", "images"}), _sample_inputs, _sample_grid),
}
