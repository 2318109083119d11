"""AdaRound against its equations: start, penalty, schedule, commit."""

import math

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import (
    AdaRoundWeight,
    AffineStatic,
    BetaSchedule,
    QuantizedLayer,
    StaticWeight,
    StepIndex,
    weight_grid,
)
from hqdm_bench.quantization.adaround import (
    rectified_sigmoid,
    rounding_penalty,
    rounding_start,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64)


SHAPES = [(6, 5), (6, 5, 1), (6, 4, 3, 3)]


def test_the_start_is_the_inverse_of_the_sigmoid() -> None:
    fraction = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(rectified_sigmoid(rounding_start(fraction)), fraction)
    assert rounding_start(torch.tensor(0.5)).abs() < 1e-6  # the sides part at V = 0
    # sigmoid(0) = 1/2; sigmoid(log 3) = 3/4
    v = torch.tensor([0.0, math.log(3), 50.0, -50.0])
    torch.testing.assert_close(rectified_sigmoid(v), torch.tensor([0.5, 0.8, 1.0, 0.0]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_soft_weight_starts_as_the_float_weight(shape: tuple[int, ...], bits: int) -> None:
    weight = normal(*shape)
    soft = AdaRoundWeight.from_float(weight, bits, "max")
    # A grid over the range clips at most the half step that the rounded zero-point costs.
    inside = (weight / soft.scale + soft.zero >= 0) & (
        weight / soft.scale + soft.zero <= 2**bits - 1
    )
    assert inside.double().mean() > 0.5
    torch.testing.assert_close(soft()[inside], weight[inside], rtol=1e-12, atol=1e-12)
    clipped = weight[~inside] - soft()[~inside]
    assert (clipped.abs() <= 0.5 * soft.scale.max() + 1e-12).all()


@pytest.mark.parametrize("rule", ["max", "mse"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_untrained_commit_is_rounding_to_nearest(shape: tuple[int, ...], rule: str) -> None:
    weight = normal(*shape)
    static = StaticWeight.from_float(weight, 4, rule)
    committed = AdaRoundWeight.from_static(weight, static).commit()
    assert torch.equal(committed.codes, static.codes)
    assert torch.equal(committed(), static())
    assert committed.codes.dtype == torch.uint8


def test_a_commit_takes_the_side_of_h() -> None:
    weight = normal(8, 12)
    soft = AdaRoundWeight.from_float(weight, 4, "max")
    with torch.no_grad():
        soft.rounding.copy_(normal(8, 12, seed=1))
    up = rectified_sigmoid(soft.rounding.detach()) >= 0.5
    floor = (weight / soft.scale).floor() + soft.zero
    codes = torch.where(up, floor + 1, floor).clamp(0, 15)
    committed = soft.commit()
    assert torch.equal(committed.codes.double(), codes)
    assert up.any()
    assert not up.all()
    soft.soft = False
    assert torch.equal(soft(), committed())
    assert torch.equal(soft.effective_codes(), committed.codes)


def test_saturated_soft_weights_are_the_committed_ones() -> None:
    soft = AdaRoundWeight.from_float(normal(8, 12), 4)
    with torch.no_grad():
        soft.rounding.copy_(20 * normal(8, 12, seed=1).sign())
    torch.testing.assert_close(soft(), soft.commit()(), rtol=1e-12, atol=1e-12)
    assert soft.penalty(20) == 0


def test_the_gradient_is_that_of_the_equation() -> None:
    soft = AdaRoundWeight.from_float(normal(3, 4), 4, "max")
    seed = normal(3, 4, seed=2)
    (soft() * seed).sum().backward()
    sigmoid = torch.sigmoid(soft.rounding.detach())
    h = sigmoid * 1.2 - 0.1
    codes = soft.floor + h + soft.zero
    inside = (h > 0) & (h < 1) & (codes >= 0) & (codes <= 15)
    expected = seed * soft.scale * 1.2 * sigmoid * (1 - sigmoid) * inside
    torch.testing.assert_close(soft.rounding.grad, expected)


def test_the_penalty_of_known_values() -> None:
    h = torch.tensor([0.0, 1.0, 0.5, 0.75], dtype=torch.float64)
    assert rounding_penalty(h, 2).item() == pytest.approx(1 + 1 - 0.25)
    assert rounding_penalty(h, 20).item() == pytest.approx(2 - 0.5**20)
    soft = AdaRoundWeight.from_float(normal(3, 4), 4)
    h = rectified_sigmoid(soft.rounding)
    plain = sum(1 - abs(2 * value - 1) ** 3 for value in h.flatten().tolist())
    assert soft.penalty(3).item() == pytest.approx(plain)


def test_beta_waits_and_falls() -> None:
    schedule = BetaSchedule(updates=1000)
    assert schedule.at(1) is None
    assert schedule.at(199) is None
    assert schedule.at(200) == 20
    assert schedule.at(600) == pytest.approx(11)
    assert schedule.at(800) == pytest.approx(6.5)
    assert schedule.at(1000) == 2
    assert BetaSchedule(10, warm_up=0.0).at(1) == pytest.approx(2 + 18 * 0.9)


def test_one_grid_for_all_channels() -> None:
    weight = normal(5, 7) * torch.arange(1.0, 6.0).double()[:, None]
    grid = weight_grid(weight, 4, "max", per_channel=False)
    assert grid.scale.shape == (5, 1)
    expected = (weight.max() - weight.min()) / 15
    torch.testing.assert_close(grid.scale, expected.expand(5, 1))
    static = StaticWeight.from_float(weight, 4, per_channel=False)
    assert torch.equal(AdaRoundWeight(weight, grid, 4).commit().codes, static.codes)


def test_it_serves_a_quantized_layer() -> None:
    source = nn.Linear(6, 5).double()
    static = StaticWeight.from_float(source.weight, 8)
    layer = QuantizedLayer(source, static, AffineStatic(8), StepIndex((0,)), low_bit=True)
    layer.step.set(0)
    x = normal(64, 6)
    layer.activation.calibrate(x)
    layer.weight = AdaRoundWeight.from_static(source.weight, static)
    soft = layer(x)
    soft.square().sum().backward()
    assert layer.weight.rounding.grad.abs().max() > 0
    layer.weight = layer.weight.commit()
    torch.testing.assert_close(layer(x), soft, rtol=0.1, atol=0.05)
    assert layer.low_bit
    with pytest.raises(BenchError, match="give the weight the layer was quantized from"):
        AdaRoundWeight.from_static(torch.zeros(3, 3), static)
