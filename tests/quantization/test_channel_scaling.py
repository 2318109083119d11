"""A layer whose input channels are shifted and scaled, against plain formulas."""

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator as stream
from hqdm_bench.quantization import (
    AdaRoundWeight,
    AffineTable,
    ChannelScaling,
    QuantizedLayer,
    StaticWeight,
    StepIndex,
    channel_maxima,
    minmax_grid,
)
from hqdm_bench.quantization.reference import plain_fake_quantize

SOURCES = {
    "linear": (lambda: nn.Linear(6, 5), (3, 7, 6)),
    "conv1d": (lambda: nn.Conv1d(6, 5, 3, padding=1), (3, 6, 9)),
    "3x3-stride2": (lambda: nn.Conv2d(6, 5, 3, stride=2, padding=1), (3, 6, 7, 8)),
}


def build(
    kind: str, bits: int, weight_bits: int | None = None, shifted: bool = False
) -> tuple[nn.Module, QuantizedLayer, Tensor]:
    """(source, layer, input) in double precision; two channels of the input are wide."""
    make, shape = SOURCES[kind]
    source = make().double().requires_grad_(False)
    for parameter in source.parameters():
        parameter.uniform_(-0.5, 0.5, generator=stream("weights", kind))
    x = torch.randn(shape, generator=stream("x"), dtype=torch.float64)
    wide = x if kind == "linear" else x.transpose(1, -1)
    wide[..., 2] *= 20
    wide[..., 4] *= 7
    weight = StaticWeight.from_float(source.weight, weight_bits or bits)
    step = StepIndex([1])
    step.set(1)
    scaling = ChannelScaling(source.weight, kind == "linear", 0.5, shifted=shifted)
    layer = QuantizedLayer(source, weight, AffineTable(bits, 1), step, scaling=scaling).double()
    return source, layer, x


def calibrate(layer: QuantizedLayer, x: Tensor) -> None:
    seen = layer.quantizer_input(x)
    grid = minmax_grid(seen, layer.activation.bits, per_channel=False)
    layer.activation.initialise(grid.scale, grid.zero)


@pytest.mark.parametrize("kind", SOURCES)
def test_output_is_that_of_the_scaled_operands(kind: str) -> None:
    source, layer, x = build(kind, 4)
    tau = torch.tensor([0.5, 1, 4, 0.25, 2, 1], dtype=torch.float64)
    layer.rescale(tau)
    calibrate(layer, x)
    scaled = x / (tau if kind == "linear" else tau.view(-1, *[1] * (x.dim() - 2)))
    weight = source.weight * tau.view(1, -1, *[1] * (source.weight.dim() - 2))
    grid = minmax_grid(scaled, 4, per_channel=False)
    x_hat = plain_fake_quantize(scaled, grid.scale, grid.zero, 0, 15)
    w_grid = minmax_grid(weight, 4, per_channel=True).for_weight(weight)
    source.weight.copy_(plain_fake_quantize(weight, w_grid.scale, w_grid.zero, 0, 15))
    torch.testing.assert_close(layer(x), source(x_hat), rtol=1e-9, atol=1e-9)
    frozen = layer.freeze()
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), source(x_hat), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", SOURCES)
def test_smoothing_lowers_the_error_of_wide_channels(kind: str) -> None:
    source, layer, x = build(kind, 5)
    exact = source(x)
    errors = []
    axis = -1 if kind == "linear" else 1
    for tau in (torch.ones(6), layer.scaling.smoothing(channel_maxima(x, axis))):
        layer.rescale(tau)
        calibrate(layer, x)
        errors.append(float((layer(x).detach() - exact).square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_a_common_factor_changes_nothing() -> None:
    _, layer, x = build("3x3-stride2", 4)
    outputs = []
    for factor in (1.0, 8.0):
        layer.rescale(factor * torch.tensor([0.5, 1, 4, 0.25, 2, 1], dtype=torch.float64))
        calibrate(layer, x)
        outputs.append(layer(x))
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", SOURCES)
def test_the_shift_meets_the_weight_before_it_is_rounded(kind: str) -> None:
    """An input that is all shift has nothing left to quantize: the output is exact, borders too."""
    source, layer, x = build(kind, 4, 2, shifted=True)
    z = torch.tensor([3, -7, 0.1, 20, -0.5, 1], dtype=torch.float64)
    constant = torch.zeros_like(x) + (z if kind == "linear" else z.view(-1, *[1] * (x.dim() - 2)))
    layer.scaling.set_shift(z)
    layer.rescale(torch.full((6,), 0.5, dtype=torch.float64))
    layer.activation.initialise(1.0, 0.0)
    torch.testing.assert_close(layer(constant), source(constant), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_shift_is_undone(kind: str) -> None:
    source, layer, x = build(kind, 16, shifted=True)
    layer.scaling.set_shift(torch.linspace(-4, 4, 6, dtype=torch.float64))
    layer.rescale(torch.tensor([0.5, 1, 4, 0.25, 2, 1], dtype=torch.float64))
    calibrate(layer, x)
    torch.testing.assert_close(layer(x).detach(), source(x), rtol=0, atol=2e-3)
    assert {"scaling.shift", "scaling.taps"} <= layer.measured().keys()


def test_one_grid_for_all_output_channels_if_asked() -> None:
    source, layer, _ = build("3x3-stride2", 4)
    layer.scaling = ChannelScaling(source.weight, False, per_channel=False)
    layer.rescale(torch.ones(6))
    assert len(layer.weight.scale) == 5
    assert len(layer.weight.scale.unique()) == 1


def test_the_float_weight_is_in_no_file_and_the_scales_are() -> None:
    _, layer, _ = build("linear", 4)
    assert "scaling.tau" in layer.state_dict()
    assert "scaling.weight" not in layer.state_dict()
    assert {"scaling.tau", "weight.codes", "weight.zero"} <= layer.measured().keys()


def test_a_layer_without_scaling_cannot_be_rescaled() -> None:
    source, layer, _ = build("linear", 4)
    layer.scaling = None
    with pytest.raises(BenchError, match="not scaled"):
        layer.rescale(torch.ones(6))
    source, layer, _ = build("linear", 4)
    layer.weight = AdaRoundWeight.from_static(source.weight, layer.weight)
    with pytest.raises(BenchError, match="before the weight is learned"):
        layer.rescale(torch.ones(6))
    assert source.weight.isfinite().all()
