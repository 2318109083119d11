"""A layer whose input channels are scaled, against plain formulas in double precision."""

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator as stream
from hqdm_bench.quantization import (
    AffineTable,
    ChannelScaling,
    LoRAWeight,
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


def build(kind: str, bits: int, lora: bool = True) -> tuple[nn.Module, QuantizedLayer, Tensor]:
    """(source, layer, input) in double precision; two channels of the input are wide."""
    make, shape = SOURCES[kind]
    source = make().double().requires_grad_(False)
    for parameter in source.parameters():
        parameter.uniform_(-0.5, 0.5, generator=stream("weights", kind))
    x = torch.randn(shape, generator=stream("x"), dtype=torch.float64)
    wide = x if kind == "linear" else x.transpose(1, -1)
    wide[..., 2] *= 20
    wide[..., 4] *= 7
    weight = (
        LoRAWeight.from_float(source.weight, bits, 2, stream("A"))
        if lora
        else StaticWeight.from_float(source.weight, bits)
    )
    step = StepIndex([1])
    step.set(1)
    scaling = ChannelScaling(source)
    layer = QuantizedLayer(source, weight, AffineTable(bits, 1), step, scaling=scaling).double()
    return source, layer, x


def calibrate(layer: QuantizedLayer, x: Tensor) -> None:
    seen = layer.quantizer_input(x)
    grid = minmax_grid(seen, layer.activation.bits, per_channel=False)
    layer.activation.initialise(grid.scale, grid.zero)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("lora", [True, False])
def test_output_is_that_of_the_scaled_operands(kind: str, lora: bool) -> None:
    source, layer, x = build(kind, 4, lora)
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
    assert layer.scaling.tau.log().mean().item() == pytest.approx(0, abs=1e-12)


def test_a_common_factor_changes_nothing() -> None:
    _, layer, x = build("3x3-stride2", 4)
    outputs = []
    for factor in (1.0, 8.0):
        layer.rescale(factor * torch.tensor([0.5, 1, 4, 0.25, 2, 1], dtype=torch.float64))
        calibrate(layer, x)
        outputs.append(layer(x))
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


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
    assert source.weight.isfinite().all()
