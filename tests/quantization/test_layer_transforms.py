"""Layers with random signs, a width axis, a rotated weight or a centre, against plain formulas."""

import pytest
import torch
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator as stream
from hqdm_bench.hadamard import block_rotate, fold, sylvester
from hqdm_bench.quantization import (
    AffineTable,
    LoRAWeight,
    QuantizedLayer,
    Rotation,
    StepIndex,
    SymmetricTable,
)
from hqdm_bench.quantization.reference import plain_fake_quantize, plain_lora_fake_quantize

SCALE = torch.tensor(0.4, dtype=torch.float64)
EXACT = {"rtol": 0, "atol": 1e-11}
EVERY = Rotation(3, "every_linear")
SOURCES = {
    "linear": lambda c: nn.Linear(c, 8),
    "1x1": lambda c: nn.Conv2d(c, 8, 1),
    "1x1-stride2": lambda c: nn.Conv2d(c, 8, 1, stride=2),
    "3x3": lambda c: nn.Conv2d(c, 8, 3, padding=1),
    "3x3-stride2": lambda c: nn.Conv2d(c, 8, 3, stride=2, padding=1),
    "3x3-bare": lambda c: nn.Conv2d(c, 8, 3, bias=False),
    "conv1d": lambda c: nn.Conv1d(c, 8, 3, padding=1),
}


def make_input(source, width=6):
    shape = {"Linear": (2, 5, 16), "Conv1d": (2, 16, 7), "Conv2d": (2, 16, 5, width)}
    size = shape[type(source).__name__]
    return torch.randn(size, generator=stream("x"), dtype=torch.float64)


def build(name, bits=4, rotation=EVERY, activation=None, rotated_weight=False, **options):
    """(source, layer) in double precision at step 1 of 2, with an update that is felt."""
    source = SOURCES[name](16).double()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.uniform_(-0.5, 0.5, generator=stream("weights", name))
    step = StepIndex([1, 501])
    step.set(501)
    weight = source.weight.detach()
    if rotated_weight:
        weight = fold(weight, rotation.order, options.get("signs"))
    lora = LoRAWeight.from_float(weight, bits, 4, stream("A", name))
    activation = activation or SymmetricTable(bits, 2)
    layer = QuantizedLayer(
        source, lora, activation, step, rotation, weight_is_rotated=rotated_weight, **options
    )
    return source, layer.double()


def update(layer):
    with torch.no_grad():
        layer.weight.lora_B.uniform_(-0.1, 0.1, generator=stream("B"))


def operate(source, x, weight, bias=True):
    offset = source.bias if bias else None
    if isinstance(source, nn.Linear):
        return nn.functional.linear(x, weight, offset)
    convolve = nn.functional.conv1d if isinstance(source, nn.Conv1d) else nn.functional.conv2d
    return convolve(x, weight, offset, source.stride, source.padding)


def product(x, source, matrix):
    """X R along the channels, by a dense matrix."""
    dim = -1 if isinstance(source, nn.Linear) else 1
    return torch.tensordot(x.movedim(dim, -1), matrix, dims=1).movedim(-1, dim)


def matrix_of(signs=None, order=3):
    dense = torch.block_diag(*[sylvester(order)] * (16 // 2**order))
    return dense if signs is None else signs[:, None] * dense


def some_signs():
    return 2.0 * torch.randint(2, (16,), generator=stream("signs")).double() - 1


def plain_weight(layer):
    lora = layer.weight
    codes = lora.codes.double()
    arguments = (lora.lora_A, lora.lora_B, lora.scale, lora.zero, codes, lora.base_scale)
    return plain_lora_fake_quantize(*arguments, 2**lora.bits - 1)


@pytest.mark.parametrize("signed", [False, True], ids=["sylvester", "random"])
@pytest.mark.parametrize("name", SOURCES)
def test_rotation_with_signs_is_undone_after_the_quantizer(name, signed):
    signs = some_signs() if signed else None
    source, layer = build(name, signs=signs)
    update(layer)
    layer.activation.initialise(SCALE)
    x, R = make_input(source), matrix_of(signs)
    codes = plain_fake_quantize(product(x, source, R), SCALE, None, -7, 7)
    expected = operate(source, product(codes, source, R.t()), plain_weight(layer))
    torch.testing.assert_close(layer(x), expected, **EXACT)
    torch.testing.assert_close(layer.quantizer_input(x), product(x, source, R), **EXACT)
    with torch.no_grad():
        layer.freeze()
        torch.testing.assert_close(layer(x), expected, **EXACT)


@pytest.mark.parametrize("signed", [False, True], ids=["sylvester", "random"])
@pytest.mark.parametrize("name", SOURCES)
def test_double_hadamard_is_the_operation_on_two_rotated_operands(name, signed):
    """Y = Q(X R) * Q(W R), for kernels of any size and stride."""
    signs = some_signs() if signed else None
    source, layer = build(name, rotated_weight=True, signs=signs)
    x, R = make_input(source), matrix_of(signs)
    turned = torch.tensordot(source.weight.movedim(1, -1), R, dims=1).movedim(-1, 1)
    low = turned.flatten(1).amin(1).clamp(max=0)
    high = turned.flatten(1).amax(1).clamp(min=0)
    column = (-1, *[1] * (turned.dim() - 1))
    step = (high - low).view(column) / 15
    W_hat = plain_fake_quantize(turned, step, (-low.view(column) / step).round(), 0, 15)
    torch.testing.assert_close(layer.weight(), W_hat, **EXACT)
    layer.activation.initialise(SCALE)
    x_hat = plain_fake_quantize(product(x, source, R), SCALE, None, -7, 7)
    expected = operate(source, x_hat, W_hat)
    torch.testing.assert_close(layer(x), expected, **EXACT)
    with torch.no_grad():
        torch.testing.assert_close(layer.freeze()(x), expected, **EXACT)
    update(layer.unfreeze())
    expected = operate(source, x_hat, plain_weight(layer))
    torch.testing.assert_close(layer(x), expected, **EXACT)


@pytest.mark.parametrize("name", SOURCES)
def test_without_quantization_error_both_hadamards_are_the_plain_layer(name):
    """At 16 bits: half a step of 1/65535 of the range an operand, times sums of some hundred."""
    outputs = []
    for rotated_weight in (False, True):
        source, layer = build(name, 16, rotated_weight=rotated_weight)
        x = make_input(source)
        layer.activation.calibrate(layer.quantizer_input(x))
        outputs.append(layer(x))
    expected = source(x)
    for out in outputs:
        assert (out - expected).norm() < 2e-4 * expected.norm()
    torch.testing.assert_close(*outputs, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("width", "order"), [(8, 3), (4, 2), (6, 1), (5, 0)])
def test_the_width_axis_takes_the_largest_block_that_divides(width, order):
    rotation = Rotation(5, "official", "width", smaller_block=True)
    source, layer = build("3x3", rotation=rotation)
    layer.activation.initialise(SCALE)
    x = make_input(source, width)
    assert layer.rotates(x) is (order > 0)
    seen = layer.quantizer_input(x)
    torch.testing.assert_close(seen, block_rotate(x, order, -1), **EXACT)
    codes = plain_fake_quantize(seen, SCALE, None, -7, 7)
    expected = operate(source, block_rotate(codes, order, -1), plain_weight(layer))
    torch.testing.assert_close(layer(x), expected, **EXACT)
    with torch.no_grad():  # no weight can take it up, so freezing folds nothing
        torch.testing.assert_close(layer.freeze()(x), expected, **EXACT)


def test_a_block_that_does_not_divide_the_width_leaves_it():
    _, layer = build("3x3", rotation=Rotation(3, "official", "width"))
    assert layer.rotates(torch.zeros(1, 16, 5, 8))
    assert not layer.rotates(torch.zeros(1, 16, 8, 6))


def test_with_a_width_axis_linear_layers_turn_their_channels():
    _, layer = build("linear", rotation=Rotation(3, "every_linear", "width", smaller_block=True))
    x = make_input(nn.Linear(16, 8))
    torch.testing.assert_close(layer.quantizer_input(x), block_rotate(x, 3, -1), **EXACT)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("rotation", [None, EVERY], ids=["plain", "rotated"])
def test_a_centre_goes_past_the_quantizer(name, rotation):
    """op(R^T Q(R (x - c)) + c, Q(W)): at borders the padding is zero, not the centre."""
    table = AffineTable(4, 2, integer_zero=True)
    source, layer = build(name, rotation=rotation, activation=table, centred=True)
    update(layer)
    layer.centre.copy_(torch.randn(2, 16, generator=stream("c"), dtype=torch.float64) * 3)
    layer.activation.initialise(SCALE, 7.0)
    x = make_input(source)
    column = (1, -1) if isinstance(source, nn.Linear) else (1, -1, *[1] * (x.dim() - 2))
    c = layer.centre[1].view(column).expand_as(x)
    R = torch.eye(16).double() if rotation is None else matrix_of()
    seen = product(x - c, source, R)
    torch.testing.assert_close(layer.quantizer_input(x), seen, **EXACT)
    x_hat = product(plain_fake_quantize(seen, SCALE, torch.tensor(7.0), 0, 15), source, R.t())
    expected = operate(source, x_hat + c, plain_weight(layer))
    torch.testing.assert_close(layer(x), expected, **EXACT)
    with torch.no_grad():
        torch.testing.assert_close(layer.freeze()(x), expected, **EXACT)


@pytest.mark.parametrize("name", SOURCES)
def test_inputs_that_are_all_centre_are_exact(name):
    source, layer = build(name, centred=True)
    layer.centre.copy_(torch.randn(2, 16, generator=stream("c"), dtype=torch.float64))
    layer.activation.initialise(SCALE)
    x = make_input(source)
    x = layer.centre[1].view((1, -1) if layer.linear else (1, -1, *[1] * (x.dim() - 2)))
    x = x.expand_as(make_input(source))
    torch.testing.assert_close(layer(x), operate(source, x, plain_weight(layer)), **EXACT)


def test_only_a_layer_that_chooses_can_be_switched():
    source, layer = build("3x3", chooses=True)
    layer.activation.initialise(SCALE)
    _, plain = build("3x3", rotation=None)
    plain.activation.initialise(SCALE)
    x = make_input(source)
    rotated = layer(x)
    layer.switch_rotation(False)
    assert torch.equal(layer(x), plain(x))
    _, twin = build("3x3", chooses=True)
    twin.load_state_dict(layer.state_dict())
    assert not twin.rotates(x)
    layer.switch_rotation(True)
    assert torch.equal(layer(x), rotated)
    with pytest.raises(BenchError, match="rotation is fixed"):
        plain.switch_rotation(False)
