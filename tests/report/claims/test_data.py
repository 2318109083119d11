"""Sentences about outliers, training and size, on made-up data files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.claims.grade_outliers import grade_outliers, peak, share_interval
from hqdm_bench.report.claims.grade_training import level, roughness
from hqdm_bench.report.claims.specs import Claim
from hqdm_bench.report.claims.verdicts import (
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conftest import World

LAYER, OTHER = "input_blocks.3.0.in_layers.2", "middle_block.0.in_layers.2"
CHANNELS = 64


def maxima(largest: float) -> np.ndarray:
    """One channel stands out of 64 at one."""
    values = np.ones(CHANNELS, np.float32)
    values[5] = largest
    return values


def weight(rows: int, outlier: float) -> np.ndarray:
    values = np.ones((rows, CHANNELS, 3, 3), np.float32)
    values[:, 0, 0, 0] = outlier
    return values


def draw(world: World, after: dict[tuple[str, int], float], **weights: float) -> World:
    """Outlier channels of 8 before the rotation; after it, by layer and step, as given."""
    layers = list(dict.fromkeys(layer for layer, _ in after))
    steps = sorted({step for _, step in after})
    tensors = {}
    for (layer, step), largest in after.items():
        tensors[f"{layer}/step{step}/before"] = maxima(8.0)
        tensors[f"{layer}/step{step}/after"] = maxima(largest)
    for layer in layers:
        tensors[f"{layer}/weight/before"] = weight(100, 2.0)
        tensors[f"{layer}/weight/after"] = weight(100, weights.get("rotated", 2.0))
    world.add("imagenet", "hqdm", "w4a4", {})
    path = world.material.layout.outliers("made-up", "some-imagenet")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    entry = {"kind": "channel_maxima", "model": "some-imagenet", "layers": layers, "steps": steps}
    world.figures = {"fig02_maxima": entry, "fig05_maxima": entry}
    return world


@pytest.mark.parametrize(
    ("after", "verdict", "held"),
    [
        ((4.0, 4.0, 4.0, 4.0), REPRODUCED, 4),
        ((4.0, 4.0, 4.0, 9.0), INCONCLUSIVE, 3),
        ((4.0, 4.0, 9.0, 9.0), NOT_REPRODUCED, 2),
    ],
)
def test_outliers_are_counted_by_panel(
    world: World, after: tuple[float, ...], verdict: str, held: int
) -> None:
    places = [(layer, step) for layer in (LAYER, OTHER) for step in (0, 9)]
    found = draw(world, dict(zip(places, after, strict=True))).judge("outliers-reduced")
    assert found.verdict == verdict
    assert f"It holds for {held} of 4 panels" in found.grade.result  # figures 2 and 5 share them
    assert found.grade.kind == "range over panels"
    assert found.grade.parts[0].label == f"{LAYER}, step 0"
    assert [path.name for path in found.grade.evidence] == ["outliers.safetensors"]


def test_what_stands_out_is_not_what_is_large(world: World) -> None:
    """Halving every channel lowers the maximum and leaves its ratio to the median alone."""
    draw(world, {(LAYER, 0): 4.0})
    path = world.material.layout.outliers("made-up", "some-imagenet")
    tensors = {
        f"{LAYER}/step0/before": maxima(8.0),
        f"{LAYER}/step0/after": maxima(8.0) / 2,
        f"{LAYER}/weight/before": weight(4, 2.0),
        f"{LAYER}/weight/after": weight(4, 2.0),
    }
    save_file(tensors, path)
    judged = world.judged()
    assert judged["outliers-reduced"].grade.effect == pytest.approx(0.5)
    assert judged["outliers-reduced"].verdict == REPRODUCED
    assert judged["fewer-extremes"].grade.effect == pytest.approx(1.0)
    assert judged["fewer-extremes"].verdict == NOT_REPRODUCED


def test_activations_beside_weights(world: World) -> None:
    found = draw(world, {(LAYER, 0): 4.0}).judge("activations-worse-than-weights")
    # The first input channel of the weight reaches 2, the activations' outlier 8.
    assert (found.verdict, found.grade.effect) == (REPRODUCED, 8 / 2)


@pytest.mark.parametrize(("other", "verdict"), [(4.0, REPRODUCED), (4.1, NOT_REPRODUCED)])
def test_drift_needs_a_factor_of_two(world: World, other: float, verdict: str) -> None:
    draw(world, {(LAYER, 0): 4.0, (LAYER, 9): 4.0})
    path = world.material.layout.outliers("made-up", "some-imagenet")
    pair = {f"{LAYER}/step0/before": maxima(8.0), f"{LAYER}/step9/before": maxima(other)}
    save_file(pair, path)
    claim = Claim("x", "section 1", "x", "drift_over_steps", figures=("fig05",))
    grade = grade_outliers(claim, world.material)
    assert (grade.verdict, grade.effect) == (verdict, pytest.approx(8 / other))


@pytest.mark.parametrize(
    ("rotated", "verdict"), [(3.0, REPRODUCED), (1.5, NOT_REPRODUCED), (2.0, NOT_REPRODUCED)]
)
def test_rotated_weights(world: World, rotated: float, verdict: str) -> None:
    draw(world, {(LAYER, 0): 4.0}, rotated=rotated)
    entry = {"kind": "weight_rotation", "model": "some-imagenet", "layer": LAYER}
    world.figures["fig03c_weight"] = entry
    found = world.judge("weights-figure-3")
    assert found.verdict == verdict
    assert found.grade.kind == "95 % over output channels"
    assert found.grade.effect == (100.0 if rotated > 2 else 0.0)


def test_a_suite_without_the_figure_runs_nothing(world: World) -> None:
    world.add("imagenet", "hqdm", "w4a4", {})
    found = world.judge("outliers-figure-2")
    assert (found.verdict, found.grade.result) == (
        NOT_RUN,
        "The suite draws none of: figure 02.",
    )


def test_a_missing_file_is_an_error_and_not_a_verdict(world: World) -> None:
    draw(world, {(LAYER, 0): 4.0})
    world.material.layout.outliers("made-up", "some-imagenet").unlink()
    with pytest.raises(BenchError, match=r"snakemake results/made-up/some-imagenet/outliers"):
        world.judged()


def test_clopper_pearson() -> None:
    """Closed forms of the ends; ten of ten, none of ten, and a textbook value."""
    assert share_interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert share_interval(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
    assert share_interval(8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-4)


def test_peak() -> None:
    assert peak(maxima(8.0)) == 8.0
    assert peak(np.zeros(4)) == 1.0
    assert peak(np.array([0.0, 0.0, 0.0, 1.0])) == math.inf


def trained(world: World, bits: str, hqdm: Sequence[float], rival: Sequence[float]) -> World:
    """Three seeds of each, whose losses differ by a factor a seed, which cancels."""
    for method, losses in (("efficientdm", rival), ("hqdm", hqdm)):
        by_seed = [[factor * loss for loss in losses] for factor in (1.0, 1.5, 3.0)]
        world.add("imagenet", method, bits, {}, {}, {}, losses=by_seed)
    return world


def curve(level: float, jump: float, epochs: int = 20) -> list[float]:
    """A loss that alternates about a level by a factor."""
    return [level * jump ** (1 if epoch % 2 else -1) for epoch in range(epochs)]


def test_convergence(world: World) -> None:
    trained(world, "w4a4", curve(1.0, 1.1), curve(2.0, 1.3))
    trained(world, "w4a3", curve(1.0, 1.1), curve(4.0, 1.5))
    judged = world.judged()
    for name in ("faster-convergence", "stable-convergence"):
        assert judged[name].verdict == REPRODUCED, name
    for name in ("faster-at-low-bits", "stabler-at-low-bits"):
        assert judged[name].verdict == REPRODUCED, name
    speed = judged["faster-convergence"].grade.parts[0]
    ratio = np.mean(curve(1.0, 1.1)) / np.mean(curve(2.0, 1.3))
    assert speed.effect == pytest.approx(ratio)
    steady = judged["stable-convergence"].grade.parts[0]
    assert steady.effect == pytest.approx(math.log(1.1) / math.log(1.3))
    assert judged["stabler-at-low-bits"].grade.effect == pytest.approx(
        math.log(1.3) / math.log(1.5)
    )


def test_convergence_the_other_way(world: World) -> None:
    trained(world, "w4a4", curve(2.0, 1.3), curve(1.0, 1.1))
    trained(world, "w4a3", curve(4.0, 1.5), curve(1.0, 1.1))
    judged = world.judged()
    for name in ("faster-convergence", "stable-convergence", "faster-at-low-bits"):
        assert judged[name].verdict == NOT_REPRODUCED, name


def test_few_epochs_decide_nothing(world: World) -> None:
    trained(world, "w4a4", curve(1.0, 1.1, 8), curve(2.0, 1.3, 8))
    trained(world, "w4a3", curve(1.0, 1.1, 8), curve(4.0, 1.5, 8))
    found = world.judge("faster-convergence")
    assert found.verdict == INCONCLUSIVE
    assert "8 epochs are too few" in found.grade.result
    assert {part.word for part in found.grade.parts} == {"supported"}


def test_roughness_knows_neither_speed_nor_level(history) -> None:
    steady = [100 * 0.9**epoch for epoch in range(12)]
    assert math.exp(roughness(history(steady))) < 1e-12
    rough = curve(1.0, 1.2)
    assert roughness(history(rough)) == pytest.approx(roughness(history([7 * x for x in rough])))
    assert level(history([1.0, 2.0, 3.0])) == pytest.approx(math.log(2.0))


@pytest.mark.parametrize(
    ("first", "verdict"), [(1.0, REPRODUCED), (900.0, NOT_REPRODUCED), (None, NOT_RUN)]
)
def test_errors_accumulate(world: World, first: float | None, verdict: str) -> None:
    growth = [[first, 9.0, 100.0 + seed] for seed in range(3)] if first else []
    for dataset in ("imagenet", "bedrooms", "churches"):
        for method in ("efficientdm", "hqdm"):
            for bits in ("w4a4", "w4a3"):
                world.add(dataset, method, bits, {}, {}, {}, growth=growth)
    found = world.judge("errors-accumulate")
    assert found.verdict == verdict
    if first == 1.0:
        assert found.grade.parts[0].effect == pytest.approx((100 * 101 * 102) ** (1 / 3))


def recorded(full: float) -> dict[str, Any]:
    shares = {"w4a4": {"mac_share": 1 - full}, "w32a32": {"mac_share": full}}
    return {
        "by_bits": shares if full else {"w4a4": {"mac_share": 1.0}},
        "weight_bytes": 90,
        "grid_bytes": 8,
        "table_bytes": 2,
        "float_weight_bytes": 400,
    }


@pytest.mark.parametrize(("full", "verdict"), [(0.0, REPRODUCED), (0.1, NOT_REPRODUCED)])
def test_coverage_and_size(world: World, full: float, verdict: str) -> None:
    world.add("imagenet", "hqdm", "w4a4", {}, {}, coverage=recorded(full))
    judged = world.judged()
    assert judged["fully-quantized"].verdict == verdict
    assert judged["fully-quantized"].grade.effect == pytest.approx(100 * full)
    assert judged["smaller"].verdict == REPRODUCED
    assert judged["smaller"].grade.effect == pytest.approx(0.25)
