"""Sentences about outliers, graded on the channel maxima and weights behind the figures."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from hqdm_bench.report.arrays import read_arrays
from hqdm_bench.report.claims.material import Material
from hqdm_bench.report.claims.specs import Claim
from hqdm_bench.report.claims.verdicts import Count, Grade, grade_counts, not_run
from hqdm_bench.report.results import need

__all__ = ["BIT", "OUTLIER_KINDS", "grade_outliers", "peak"]

BIT = 2.0  # a range that changes by this factor is worth one bit of the grid
TAIL = 0.025  # each side of a 95 % interval

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Panel:
    """One layer at one step of the table, as a figure shows it.

    Attributes:
        file: outliers.safetensors of the model.
        layer: CompVis name.
        step: index in the step table.
    """

    file: Path
    layer: str
    step: int

    @property
    def label(self) -> str:
        """As in ``middle_block.0, step 9``."""
        return f"{self.layer}, step {self.step}"

    def maxima(self, side: str) -> Array:
        """(C,) largest magnitude of every channel, before or after the rotation."""
        key = f"{self.layer}/step{self.step}/{side}"
        return read_arrays(self.file, [key])[0][key]

    def weight(self, side: str) -> Array:
        """(c_out, c_in, ...) weight, before or after a rotation along its input channels."""
        key = f"{self.layer}/weight/{side}"
        return read_arrays(self.file, [key])[0][key]


def grade_outliers(claim: Claim, material: Material) -> Grade:
    """Grade one sentence of `OUTLIER_KINDS`.

    Raises:
        BenchError: the suite has such a figure, but not the file behind it, or it is damaged.
    """
    panels = list(dict.fromkeys(_panels(claim, material)))
    if not panels:
        shown = ", ".join(name.replace("fig", "figure ") for name in claim.figures)
        return not_run(f"The suite draws none of: {shown}.")
    evidence = list(dict.fromkeys(panel.file for panel in panels))
    count, noun = OUTLIER_KINDS[claim.kind]
    return grade_counts(list(count(claim, panels)), evidence, noun)


def _panels(claim: Claim, material: Material) -> Iterator[Panel]:
    """What the suite's figures of these numbers show."""
    for name, entry in material.suite.figures.items():
        if name[: len("fig00")] not in claim.figures:
            continue
        if entry["kind"] not in ("channel_maxima", "weight_rotation"):
            continue
        layout = material.layout
        file = need(material.root, layout.outliers(material.suite.name, entry["model"]))
        layers = entry["layers"] if "layers" in entry else [entry["layer"]]
        for layer, step in itertools.product(layers, entry.get("steps", [-1])):
            yield Panel(file, layer, step)


def peak(maxima: Array) -> float:
    """Largest over median magnitude: how far the outlier channels stand out."""
    middle, most = float(np.median(maxima)), float(maxima.max())
    if middle > 0:
        return most / middle
    return np.inf if most > 0 else 1.0


def _reduced(claim: Claim, panels: Sequence[Panel]) -> Iterator[Count]:
    """The statistic after the rotation over that before it, panel by panel."""
    statistic: Callable[[Array], float] = peak if claim.statistic == "peak" else np.max
    unit = "times max/median" if claim.statistic == "peak" else "times the largest maximum"
    for panel in panels:
        before = float(statistic(panel.maxima("before")))
        ratio = float(statistic(panel.maxima("after"))) / before if before > 0 else 1.0
        yield Count(panel.label, ratio, unit, ratio < 1)


def _beside_weights(claim: Claim, panels: Sequence[Panel]) -> Iterator[Count]:
    """How far input channels stand out in the activations over how far they do in the weight."""
    for panel in panels:
        weight = np.abs(panel.weight("before"))
        columns = np.moveaxis(weight, 1, 0).reshape(weight.shape[1], -1).max(axis=1)
        ratio = peak(panel.maxima("before")) / peak(columns)
        yield Count(panel.label, ratio, "times the weight's max/median", ratio > 1)


def _drift(claim: Claim, panels: Sequence[Panel]) -> Iterator[Count]:
    """The largest maximum of a layer at its widest step over that at its narrowest."""
    layers: dict[tuple[Path, str], list[float]] = {}
    for panel in panels:
        found = layers.setdefault((panel.file, panel.layer), [])
        found.append(float(panel.maxima("before").max()))
    for (_, layer), maxima in layers.items():
        ratio = max(maxima) / min(maxima) if min(maxima) > 0 else np.inf
        yield Count(layer, ratio, "times between the steps", ratio >= BIT)


def _weights(claim: Claim, panels: Sequence[Panel]) -> Iterator[Count]:
    """Share of output channels whose largest weight grows, which sets their step size."""
    for panel in dict.fromkeys(Panel(panel.file, panel.layer, -1) for panel in panels):
        before, after = (
            np.abs(panel.weight(side)).reshape(len(panel.weight(side)), -1).max(axis=1)
            for side in ("before", "after")
        )
        grown, rows = int((after > before).sum()), len(before)
        low, high = share_interval(grown, rows)
        holds = True if low > 0.5 else False if high < 0.5 else None
        kind = "95 % over output channels"
        unit = "% of output channels with a larger maximum"
        yield Count(panel.layer, 100 * grown / rows, unit, holds, (100 * low, 100 * high), kind)


def share_interval(successes: int, trials: int) -> tuple[float, float]:
    """Clopper-Pearson interval of a share at 95 %."""
    low = betaincinv(successes, trials - successes + 1, TAIL) if successes else 0.0
    high = betaincinv(successes + 1, trials - successes, 1 - TAIL) if successes < trials else 1.0
    return float(low), float(high)


OUTLIER_KINDS: dict[str, tuple[Callable[[Claim, Sequence[Panel]], Iterator[Count]], str]] = {
    "outliers_reduced": (_reduced, "panels"),
    "outliers_beside_weights": (_beside_weights, "panels"),
    "drift_over_steps": (_drift, "layers"),
    "weight_outliers": (_weights, "layers"),
}
