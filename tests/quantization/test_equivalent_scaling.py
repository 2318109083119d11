"""Scaling of input channels: the equivalence, the learned scales, the powers of two.

Numbers given as constants are what the released code of DMQ (LeeDongYeun/dmq, 48ce8bc) computes in
double precision on the inputs that `wave` makes, with the gradient of clamp that its PyTorch (2.3)
has: one on the limits.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import (
    ScalingSettings,
    TimestepWeights,
    channel_axis,
    channel_maxima,
    divide_input,
    dynamic_fake_quantize,
    learn_scaling,
    multiply_weight,
    sample_losses,
    scaled_output,
    smoothing_scale,
)

DOUBLE = torch.float64
LAYERS = [
    (nn.Linear(6, 5), (4, 6)),
    (nn.Linear(6, 5), (4, 7, 6)),
    (nn.Conv1d(6, 5, 3, padding=2, dilation=2), (4, 6, 9)),
    (nn.Conv2d(6, 5, 1), (4, 6, 5, 5)),
    (nn.Conv2d(6, 5, 3, stride=2, padding=1), (4, 6, 8, 7)),
    (nn.Conv2d(6, 5, (3, 2), stride=(1, 3), padding=(2, 0), bias=False), (4, 6, 8, 7)),
]


def wave(*shape: int, rate: float) -> Tensor:
    """Numbers without a generator, the same everywhere."""
    i = torch.arange(math.prod(shape), dtype=DOUBLE)
    return (torch.sin(i * rate) + 0.5 * torch.cos(i * i * 0.01 * rate)).reshape(shape)


def example() -> tuple[nn.Conv2d, Tensor]:
    """The layer and the inputs that the released code was run on."""
    layer = nn.Conv2d(4, 3, 3, stride=2, padding=1).double().requires_grad_(False)
    layer.weight.copy_(0.2 * wave(3, 4, 3, 3, rate=1.3))
    assert layer.bias is not None
    layer.bias.copy_(wave(3, rate=2.1))
    widths = torch.tensor([1, 0.3, 2, 0.1], dtype=DOUBLE).view(1, 4, 1, 1)
    return layer, wave(6, 4, 5, 5, rate=0.7) * widths


def convolve(layer: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.conv2d(x, weight, layer.bias, layer.stride, layer.padding)


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_the_scaled_layer_is_the_layer(
    layer: nn.Module, shape: tuple[int, ...], generator: torch.Generator
) -> None:
    layer = layer.double().requires_grad_(False)
    x = torch.randn(shape, generator=generator, dtype=DOUBLE)
    tau = torch.rand(6, generator=generator, dtype=DOUBLE) * 3 + 0.1
    expected = layer(x)
    layer.weight.copy_(multiply_weight(layer.weight, tau))
    scaled = divide_input(x, tau, channel_axis(layer))
    torch.testing.assert_close(layer(scaled), expected, rtol=1e-12, atol=1e-13)
    assert not torch.allclose(layer(x), expected)  # the weight alone is another layer


def test_layers_that_cannot_be_scaled_are_refused() -> None:
    for layer in (nn.Conv2d(4, 4, 3, groups=2), nn.LayerNorm(4)):
        with pytest.raises(BenchError, match="cannot scale the input channels"):
            channel_axis(layer)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_smoothing_moves_the_maxima(alpha: float, generator: torch.Generator) -> None:
    """At 1/2 both operands have the same maxima; at 1 the input's are 1, at 0 the weight's."""
    x = torch.randn(50, 6, 3, 3, generator=generator, dtype=DOUBLE)
    x *= torch.tensor([1, 2, 5, 0.1, 30, 1], dtype=DOUBLE).view(1, 6, 1, 1)
    weight = torch.randn(5, 6, 3, 3, generator=generator, dtype=DOUBLE)
    x_max, w_max = channel_maxima(x, 1), channel_maxima(weight, 1)
    torch.testing.assert_close(x_max, x.abs().amax((0, 2, 3)))
    tau = smoothing_scale(x_max, w_max, alpha)
    torch.testing.assert_close(tau, x_max**alpha / w_max ** (1 - alpha))
    new_x = channel_maxima(divide_input(x, tau, 1), 1)
    new_w = channel_maxima(multiply_weight(weight, tau), 1)
    torch.testing.assert_close(new_x * new_w, x_max * w_max)
    torch.testing.assert_close(new_x, (x_max * w_max) ** (1 - alpha))


def test_smoothing_survives_dead_channels_and_refuses_nonsense() -> None:
    tau = smoothing_scale(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]))
    assert (tau > 0).all()
    assert tau.isfinite().all()
    with pytest.raises(BenchError, match=r"alpha from 0 to 1, not 1\.5"):
        smoothing_scale(torch.ones(2), torch.ones(2), 1.5)


def test_a_dynamic_grid_is_that_of_its_range() -> None:
    x = wave(3, 40, rate=0.9)
    found = dynamic_fake_quantize(x, 3, per_channel=True)
    for row, rounded in zip(x, found, strict=True):
        step = (row.max() - row.min()) / 7
        zero = torch.round(-row.min() / step)
        expected = ((torch.round(row / step) + zero).clamp(0, 7) - zero) * step
        torch.testing.assert_close(rounded, expected, rtol=1e-12, atol=0)
    assert (dynamic_fake_quantize(torch.full((4, 4), 0.0), 4, per_channel=False) == 0).all()


def test_loss_and_gradient_are_the_released_ones() -> None:
    layer, x = example()
    tau = torch.tensor([1.2, 0.6, 1.5, 0.3], dtype=DOUBLE, requires_grad=True)
    found = scaled_output(lambda a, w: convolve(layer, a, w), x, layer.weight, tau, (4, 6), 1)
    assert found.sum().item() == pytest.approx(86.70273893992047, rel=1e-9)
    weights = TimestepWeights(20, alpha=20.0, momentum=0.95)
    expected = [
        (
            [1, 51, 51, 951, 501, 1],
            4.8992335639088606e-05,
            [
                -2.433186865126029e-05,
                4.751538693384014e-06,
                2.4322835586850378e-05,
                -3.378978071597924e-05,
            ],
        ),
        (
            [951, 951, 1, 301, 51, 501],
            0.00017176867674218308,
            [
                -5.40392097520923e-05,
                1.0260531993073183e-05,
                6.226937583350003e-05,
                -0.00011571110414527943,
            ],
        ),
    ]
    losses = sample_losses(found, layer(x))
    for times, value, gradient in expected:
        rows = (torch.tensor(times) - 1) // 50
        loss = (weights(losses, rows) * losses).mean()
        assert loss.item() == pytest.approx(value, rel=1e-7)
        (slope,) = torch.autograd.grad(loss, [tau], retain_graph=True)
        torch.testing.assert_close(slope, torch.tensor(gradient, dtype=DOUBLE), rtol=1e-6, atol=0)
    averages = {0: 0.000627435202856, 1: 0.000767909191670, 6: 0.000233898741834}
    for row, average in averages.items():
        assert weights.averages[row].item() == pytest.approx(average, rel=1e-9)


def test_twenty_updates_give_the_released_scales() -> None:
    """All samples in every batch, so that their order alone is random."""
    layer, x = example()
    rows = (torch.tensor([1, 51, 51, 951, 501, 1]) - 1) // 50
    settings = ScalingSettings(iterations=20, batch=6, learning_rate=1e-2)
    tau = learn_scaling(layer, x, rows, 20, (4, 6), settings, torch.Generator().manual_seed(0))
    released = [1.0013866724883134, 0.9040347026034443, 1.0885882940208937, 0.9235846484344216]
    torch.testing.assert_close(tau, torch.tensor(released, dtype=DOUBLE), rtol=1e-6, atol=0)


def test_weights_follow_the_closed_form() -> None:
    weights = TimestepWeights(3, alpha=2.0, momentum=0.9)
    losses = torch.tensor([1.0, 2.0, 5.0], dtype=DOUBLE)
    first = weights(losses, torch.tensor([0, 0, 2]))  # sums 3, 0, 5
    expected = [(1 - 3 / 8) ** 2, (1 - 3 / 8) ** 2, (1 - 5 / 8) ** 2]
    torch.testing.assert_close(first, torch.tensor(expected, dtype=DOUBLE))
    second = weights(losses[:1], torch.tensor([1]))  # 0.27, 0.1, 0.45
    torch.testing.assert_close(second, torch.tensor([(1 - 0.1 / 0.82) ** 2], dtype=DOUBLE))
    none = TimestepWeights(3)(torch.zeros(2), torch.tensor([0, 1]))
    assert none.tolist() == [1, 1]
    even = TimestepWeights(3, alpha=0.0)(losses, torch.tensor([0, 1, 2]))
    assert even.tolist() == [1, 1, 1]


def test_learning_lowers_the_error_of_a_layer_with_outlier_channels(
    generator: torch.Generator,
) -> None:
    layer = nn.Linear(16, 8).requires_grad_(False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(8, 16, generator=generator))
    x = torch.randn(64, 16, generator=generator)
    x[:, 3] *= 6
    rows = torch.arange(64) % 4
    settings = ScalingSettings(iterations=150, batch=32, learning_rate=1e-2, alpha=1.0)
    tau = learn_scaling(layer, x, rows, 4, (8, 4), settings, generator)

    def error(scale: Tensor) -> float:
        out = scaled_output(nn.functional.linear, x, layer.weight, scale, (8, 4), -1)
        return float((out - nn.functional.linear(x, layer.weight)).square().mean())

    assert tau[3] == tau.max()
    assert error(tau) < 0.7 * error(torch.ones(16))


def test_learning_needs_a_step_for_every_input(generator: torch.Generator) -> None:
    layer, x = example()
    with pytest.raises(BenchError, match="6 inputs and 2 steps"):
        learn_scaling(layer, x, torch.zeros(2), 1, (4, 4), ScalingSettings(1), generator)


def test_scales_are_learned_where_there_is_one_step_alone() -> None:
    """1 - L / L is zero: released code, which always has 20 steps, would learn nothing."""
    losses = torch.tensor([0.5, 2.0])
    assert torch.equal(TimestepWeights(1)(losses, torch.tensor([0, 0])), torch.ones(2))
