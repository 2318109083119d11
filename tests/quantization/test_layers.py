import copy

import pytest
import torch
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator as stream
from hqdm_bench.hadamard import block_rotate
from hqdm_bench.quantization import (
    AffineStatic,
    AffineTable,
    LoRAWeight,
    QuantizedLayer,
    Rotation,
    StaticWeight,
    StepIndex,
    SymmetricTable,
)

SOURCES = {
    "conv": (lambda c: nn.Conv2d(c, 16, 3, stride=2, padding=1), (2, 6, 5)),
    "conv1d": (lambda c: nn.Conv1d(c, 16, 3, padding=2, dilation=2, bias=False), (2, 9)),
    "vector": (lambda c: nn.Linear(c, 16), (6,)),
    "tokens": (lambda c: nn.Linear(c, 16), (3, 5)),
}


def build(source, rotation=None, activation=None, dtype=torch.float64):
    """A low-bit layer that is calibrated, at step 1 of 3, with a non-zero update."""
    step = StepIndex([1, 501, 901])
    step.set(501)
    weight = LoRAWeight.from_float(source.weight, 4, 4, stream("layer"))
    with torch.no_grad():
        weight.lora_B.uniform_(-0.1, 0.1, generator=stream("B"))
    activation = activation or SymmetricTable(4, 3)
    activation.initialise(torch.tensor([9.0, 0.3, 9.0]), 7.3)
    return QuantizedLayer(source, weight, activation, step, rotation).to(dtype)


def make_input(name, channels=64, dtype=torch.float64):
    shape = list(SOURCES[name][1])
    shape.insert(1 if name.startswith("conv") else len(shape), channels)
    return torch.randn(shape, generator=stream("x"), dtype=dtype)


@pytest.mark.parametrize("name", SOURCES)
def test_output_is_the_operation_on_quantized_operands(name):
    source = SOURCES[name][0](64)
    layer = build(source)
    x = make_input(name)
    source = source.double()
    with torch.no_grad():
        source.weight.copy_(layer.weight())
    x_hat = (x / layer.activation.scale[1]).round().clamp(-7, 7) * layer.activation.scale[1]
    torch.testing.assert_close(layer(x), source(x_hat))
    if source.bias is not None:
        assert torch.equal(layer.bias, source.bias)


@pytest.mark.parametrize(
    ("name", "rotation", "expected"),
    [
        ("conv", Rotation(5), True),
        ("vector", Rotation(5), True),
        ("tokens", Rotation(5), False),
        ("conv1d", Rotation(5), False),
        ("tokens", Rotation(5, "every_linear"), True),
        ("conv1d", Rotation(5, "every_linear"), True),
        ("conv", None, False),
    ],
)
def test_which_inputs_are_rotated(name, rotation, expected):
    layer, x = build(SOURCES[name][0](64), rotation), make_input(name)
    assert layer.rotates(x) is expected
    seen = layer.quantizer_input(x)
    if not expected:
        assert seen is x
        return
    torch.testing.assert_close(seen, block_rotate(x, 5, 1 if name.startswith("conv") else -1))
    plain = build(SOURCES[name][0](64))
    plain.load_state_dict(layer.state_dict())
    assert not torch.allclose(layer(x), plain(x))


def test_widths_without_whole_blocks_are_left_alone():
    for channels, rotates in ((48, False), (32, True), (96, True)):
        layer = build(nn.Conv2d(channels, 4, 3), Rotation(5))
        assert layer.rotates(torch.zeros(1, channels, 4, 4)) is rotates
    assert build(nn.Linear(48, 4), Rotation(4)).rotates(torch.zeros(1, 48))


@pytest.mark.parametrize("rotation", [None, Rotation(5), Rotation(3, "every_linear")])
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("kind", ["symmetric", "affine"])
def test_freezing_changes_nothing(name, rotation, kind):
    activation = SymmetricTable(4, 3) if kind == "symmetric" else AffineTable(4, 3)
    layer, x = build(SOURCES[name][0](64), rotation, activation), make_input(name)
    expected = layer(x)
    assert layer.freeze() is layer
    assert layer.frozen
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-13)
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-13)  # from the kept weight
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-13)
    assert not layer.unfreeze().frozen
    assert torch.equal(layer(x), expected)


def test_channels_last_inputs():
    layer, x = build(SOURCES["conv"][0](64), Rotation(5)), make_input("conv")
    expected, other = layer(x), x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(other), expected, rtol=0, atol=1e-13)
    with torch.no_grad():
        torch.testing.assert_close(layer.freeze()(other), expected, rtol=0, atol=1e-13)


def frozen_after(change, rotation=None):
    """(output of the frozen layer, output of an unfrozen twin) after a change."""
    layer, x = build(nn.Linear(64, 16), rotation), make_input("vector")
    layer.freeze()
    with torch.no_grad():
        before = layer(x)
    layer = change(layer) or layer
    with torch.no_grad():
        after = layer(x.to(layer.bias.dtype))
        expected = layer.unfreeze()(x.to(layer.bias.dtype))
    assert not torch.equal(before, after)
    return after, expected


def update(layer):
    optimiser = torch.optim.AdamW(layer.parameters(), lr=1e-2, foreach=False)
    layer(make_input("vector")).sum().backward()
    optimiser.step()


def double_base(layer):
    with torch.no_grad():
        layer.weight.base_scale.mul_(2)


def load_other(layer):
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    state["weight.scale"] *= 2
    layer.load_state_dict(state)


def assign_other(layer):
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    state["weight.scale"] *= 2
    layer.load_state_dict(state, assign=True)


def copied_and_changed(layer):
    layer = copy.deepcopy(layer)
    double_base(layer)
    return layer


@pytest.mark.parametrize(
    "change",
    [
        update,
        double_base,
        load_other,
        assign_other,
        copied_and_changed,
        lambda layer: layer.float(),
    ],
    ids=["optimiser", "base_scale", "load", "assign", "deepcopy", "dtype"],
)
@pytest.mark.parametrize("rotation", [None, Rotation(5)])
def test_a_kept_weight_is_never_stale(change, rotation):
    after, expected = frozen_after(change, rotation)
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)


def test_calls_with_gradients_ignore_the_kept_weight():
    layer, x = build(nn.Linear(64, 16), Rotation(5)), make_input("vector")
    layer.freeze()
    with torch.no_grad():
        layer(x)
    layer(x).sum().backward()
    assert layer.weight.lora_B.grad.abs().sum() > 0
    assert layer.train().frozen is False
    assert layer.eval().freeze().frozen


def test_static_layers_learn_nothing_but_pass_gradients():
    source = nn.Conv2d(64, 3, 3, padding=1)
    step = StepIndex([1])
    step.set(1)
    layer = QuantizedLayer(source, StaticWeight.from_float(source.weight, 8), AffineStatic(8), step)
    x = make_input("conv", dtype=torch.float32).requires_grad_()
    layer.activation.calibrate(x)
    assert not list(layer.parameters())
    out = layer(x)
    torch.testing.assert_close(out, source(x), rtol=0, atol=0.1)
    out.sum().backward()
    assert x.grad.abs().sum() > 0
    assert {"bias", "weight.codes", "activation.scale"} < set(layer.state_dict())


def test_layers_of_a_copied_student_share_its_step():
    step = StepIndex([1, 501])
    layers = nn.ModuleList(build(nn.Linear(64, 4)) for _ in range(2))
    for layer in layers:
        layer.step = step
    twin = copy.deepcopy(layers)
    assert twin[0].step is twin[1].step
    assert twin[0].step is not step


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (nn.Conv2d(8, 8, 3, groups=2), "groups=2"),
        (nn.Conv2d(8, 8, 3, padding_mode="circular"), "circular"),
        (nn.Conv3d(8, 8, 3), "Conv3d"),
    ],
)
def test_unsupported_layers_are_refused(source, message):
    with pytest.raises(BenchError, match=message):
        build(source)
