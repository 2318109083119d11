"""Sentences about training, sampling errors and size, graded on what each cell recorded."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.claims.material import Material
from hqdm_bench.report.claims.specs import Claim
from hqdm_bench.report.claims.verdicts import (
    INCONCLUSIVE,
    NOT_RUN,
    Comparison,
    Count,
    Grade,
    grade_comparisons,
    grade_counts,
    not_run,
)
from hqdm_bench.report.estimates import Draws, Sample
from hqdm_bench.report.results import CellResult, LossHistory

__all__ = ["TRAINING_KINDS", "level", "roughness"]

STEP = 0  # of the step table, the one that figure 4 shows
FEWEST_EPOCHS = 16  # below, a curve shows where training starts rather than how it converges


def level(history: LossHistory) -> float:
    """Logarithm of the mean loss at step 0 over all epochs: the area under figure 4's curve."""
    return math.log(float(_at_step(history).mean()))


def roughness(history: LossHistory) -> float:
    """Logarithm of how much the loss at step 0 jumps from one epoch to the next.

    The standard deviation of the changes of log loss: a steady fall has none, at any speed and any
    level.
    """
    changes = np.diff(np.log(_at_step(history)))
    if len(changes) < 2:
        raise BenchError("fewer than three epochs have no roughness; train for more")
    return math.log(max(float(changes.std(ddof=1)), np.finfo(np.float64).tiny))


def _at_step(history: LossHistory) -> npt.NDArray[np.float64]:
    chosen = history.loss[history.step == STEP]
    if not len(chosen) or not (chosen > 0).all():
        raise BenchError(f"a history without positive losses at step {STEP} cannot be graded")
    return chosen


STATISTICS = {"level": level, "roughness": roughness}


def _curve(material: Material, claim: Claim, model: str, method: str, bits: Bits) -> Sample:
    """The statistic of every seed whose history is long enough."""
    statistic, least = STATISTICS[claim.statistic], 3 if claim.statistic == "roughness" else 1
    return {
        result.cell.seed: Draws(statistic(result.history))
        for result in material.cells(model, method, bits)
        if result.history is not None and len(_at_step(result.history)) >= least
    }


def _convergence(claim: Claim, material: Material) -> Grade:
    """The rival's statistic over HQ-DM's, as logarithms: above zero is faster or steadier."""
    (method,), (rival,) = claim.methods, claim.against
    found = []
    for model, bits in _rows(claim, material):
        samples = (
            _curve(material, claim, model, method, bits),
            _curve(material, claim, model, rival, bits),
        )
        found.append(
            Comparison(
                f"{model}, {bits.label}: {material.title(method)} over {material.title(rival)}",
                (lambda left, right: right - left,),
                samples,
                _measure(claim),
                _histories(material, model, (method, rival), bits),
                shown=lambda value: math.exp(-value),
            )
        )
    return _long_enough(grade_comparisons(found), claim, material)


def _convergence_trend(claim: Claim, material: Material) -> Grade:
    """The same factor at the lower bits over that at the higher ones."""
    (method,), (rival,) = claim.methods, claim.against
    found = []
    for cells in claim.cells:
        for spec in material.models(cells.table):
            for earlier, later in zip(cells.bits[:-1], cells.bits[1:], strict=True):
                rows = [(name, bits) for bits in (later, earlier) for name in (method, rival)]
                found.append(
                    Comparison(
                        f"{spec.name}: {material.title(method)} over {material.title(rival)} at "
                        f"{later.label}, over the same at {earlier.label}",
                        (lambda a, b, c, d: (b - a) - (d - c),),
                        tuple(_curve(material, claim, spec.name, *row) for row in rows),
                        _measure(claim),
                        _histories(material, spec.name, (method, rival), later)
                        + _histories(material, spec.name, (method, rival), earlier),
                        shown=lambda value: math.exp(-value),
                    )
                )
    return _long_enough(grade_comparisons(found), claim, material)


def _long_enough(grade: Grade, claim: Claim, material: Material) -> Grade:
    """The grade, undecided where a student trained for too few epochs to speak of convergence."""
    epochs = [
        len(_at_step(result.history))
        for model, bits in _rows(claim, material)
        for method in (*claim.methods, *claim.against)
        for result in material.cells(model, method, bits)
        if result.history is not None
    ]
    if grade.verdict == NOT_RUN or min(epochs) >= FEWEST_EPOCHS:
        return grade
    text = f"{min(epochs)} epochs are too few to judge convergence by ({FEWEST_EPOCHS} at least)."
    return replace(grade, verdict=INCONCLUSIVE, result=" ".join(filter(None, (grade.result, text))))


def _measure(claim: Claim) -> str:
    return "times the mean loss" if claim.statistic == "level" else "times the jumps of the loss"


def _error_growth(claim: Claim, material: Material) -> Grade:
    """Latent error at the last sampled step over that at the first."""
    found = []
    for method in claim.methods:
        for model, bits in _rows(claim, material):
            sample = {
                result.cell.seed: Draws(growth)
                for result in material.cells(model, method, bits)
                if (growth := _growth(result)) is not None
            }
            found.append(
                Comparison(
                    f"{model}, {bits.label}: {material.title(method)}",
                    (lambda value: value,),
                    (sample,),
                    "times the latent error of the first sampled step",
                    material.files(model, method, bits, ""),
                    shown=math.exp,
                )
            )
    grade = grade_comparisons(found)
    if any(comparison.estimates() for comparison in found):
        return grade
    return not_run("No result records the errors along the sampling trajectory.")


def _growth(result: CellResult) -> float | None:
    """Logarithm of last over first latent error; None where it was not recorded."""
    paired = result.metrics and result.metrics["paired"]
    steps = paired.get("growth") if paired else None
    if not steps or len(steps) < 2:
        return None
    first, last = (step["latent_mse_mean"] for step in (steps[0], steps[-1]))
    return math.log(last / first) if first > 0 and last > 0 else None


def _full_coverage(claim: Claim, material: Material) -> Grade:
    """Share of multiply-accumulates left in full precision, products of attention not counted."""

    def share(result: CellResult) -> float | None:
        by_bits = result.training and result.training["coverage"]["by_bits"]
        return 100 * by_bits.get("w32a32", {"mac_share": 0.0})["mac_share"] if by_bits else None

    unit = "% of multiply-accumulates in full precision"
    return _recorded(claim, material, share, unit, lambda value: value == 0)


def _memory(claim: Claim, material: Material) -> Grade:
    """Packed bytes of a student over those of its teacher's float32 weights."""

    def ratio(result: CellResult) -> float | None:
        found = result.training and result.training["coverage"]
        if not found or "float_weight_bytes" not in found:
            return None
        packed = found["weight_bytes"] + found["grid_bytes"]
        packed += found.get("table_bytes", 0)  # older records have none
        return float(packed / found["float_weight_bytes"])

    return _recorded(claim, material, ratio, "times the bytes of float32", lambda value: value < 1)


def _recorded(
    claim: Claim,
    material: Material,
    read: Callable[[CellResult], float | None],
    unit: str,
    holds: Callable[[float], bool],
) -> Grade:
    """A number that every seed of a row shares."""
    counts, evidence = [], []
    for method in claim.methods:
        for model, bits in _rows(claim, material):
            results = material.cells(model, method, bits)
            value = read(results[0]) if results else None
            if value is not None:
                counts.append(Count(f"{model}, {bits.label}", value, unit, holds(value)))
                evidence.append(material.layout.training(results[0].cell))
    if not counts:
        return not_run("The suite has none of the students this sentence speaks of.")
    return grade_counts(counts, evidence, "models")


def _rows(claim: Claim, material: Material) -> Iterator[tuple[str, Bits]]:
    for cells in claim.cells:
        for spec in material.models(cells.table):
            yield from ((spec.name, bits) for bits in cells.bits)


def _histories(
    material: Material, model: str, methods: tuple[str, ...], bits: Bits
) -> tuple[Path, ...]:
    return tuple(
        material.layout.history(result.cell)
        for method in methods
        for result in material.cells(model, method, bits)
    )


TRAINING_KINDS: dict[str, Callable[[Claim, Material], Grade]] = {
    "convergence": _convergence,
    "convergence_trend": _convergence_trend,
    "error_growth": _error_growth,
    "full_coverage": _full_coverage,
    "memory": _memory,
}
