"""Integer layers against their fake-quantized originals: codes, sums, outputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.integer import IntegerLayer, choose_kernel
from hqdm_bench.integer.kernels import ExactFloatKernel, Kernel, ReferenceKernel
from hqdm_bench.quantization import QuantizedLayer, Rotation

KERNELS = (ReferenceKernel, ExactFloatKernel, choose_kernel("auto")[0])
CHANNEL, WIDTH = Rotation(5), Rotation(5, axis="width", smaller_block=True)
EVERY = Rotation(5, "every_linear", smaller_block=True)


def conv(c_in: int, c_out: int, kernel: Any = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, **options)


# source, input shape, options of make_layer
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "conv": (lambda: conv(64, 40, padding=1), (2, 64, 7, 9), {"rotation": CHANNEL}),
    "conv-strided": (
        lambda: conv(32, 8, padding=1, stride=2),
        (1, 32, 8, 7),
        {"rotation": CHANNEL},
    ),
    "conv-dilated": (
        lambda: conv(32, 8, (3, 2), padding=(2, 1), stride=(1, 2), dilation=(2, 1)),
        (1, 32, 9, 8),
        {"rotation": CHANNEL},
    ),
    "conv-same": (lambda: conv(32, 8, padding="same"), (1, 32, 5, 5), {"rotation": CHANNEL}),
    "conv-1x1-no-bias": (
        lambda: conv(96, 33, 1, bias=False),
        (3, 96, 4, 4),
        {"rotation": CHANNEL},
    ),
    "odd-channels": (lambda: conv(37, 5, padding=1), (2, 37, 6, 5), {"rotation": CHANNEL}),
    "odd-smaller-block": (lambda: conv(36, 7, padding=1), (2, 36, 6, 5), {"rotation": EVERY}),
    "large-block": (
        lambda: conv(128, 7, padding=1),
        (1, 128, 4, 4),
        {"rotation": Rotation(7)},
    ),
    "plain": (lambda: conv(16, 8, padding=1), (2, 16, 5, 5), {}),
    "full-range": (
        lambda: conv(32, 8, padding=1),
        (2, 32, 5, 5),
        {"rotation": CHANNEL, "grid": "full_range"},
    ),
    "affine": (lambda: conv(16, 8, padding=1), (2, 16, 5, 5), {"grid": "affine"}),
    "affine-rotated": (
        lambda: conv(64, 8, padding=1),
        (2, 64, 5, 5),
        {"grid": "affine", "rotation": EVERY, "signs": True},
    ),
    "plus": (
        lambda: conv(64, 8, padding=1, stride=2),
        (2, 64, 5, 6),
        {"grid": "affine", "rotation": EVERY, "signs": True, "centred": True},
    ),
    "plus-one-by-one": (
        lambda: conv(32, 8, 1),
        (2, 32, 1, 1),
        {"grid": "affine", "rotation": EVERY, "signs": True, "centred": True},
    ),
    "static": (
        lambda: conv(3, 32, padding=1),
        (2, 3, 8, 8),
        {"grid": "static", "bits": 8, "weight_bits": 8},
    ),
    "w8a8": (
        lambda: conv(64, 16, padding=1),
        (2, 64, 5, 5),
        {"rotation": CHANNEL, "bits": 8, "weight_bits": 8},
    ),
    "width-a3": (lambda: conv(8, 8, padding=1), (2, 8, 6, 32), {"rotation": WIDTH, "bits": 3}),
    "width-a4": (lambda: conv(8, 8, padding=1), (2, 8, 6, 32), {"rotation": WIDTH}),
    "width-a8-small": (
        lambda: conv(8, 8, padding=1),
        (2, 8, 6, 12),
        {"rotation": WIDTH, "bits": 8},
    ),
    "per-step": (
        lambda: conv(32, 8, padding=1),
        (2, 32, 5, 5),
        {"rotation": CHANNEL, "per_step": True},
    ),
    "linear-width": (
        lambda: nn.Linear(64, 24),
        (2, 5, 64),
        {"rotation": Rotation(5, "every_linear", "width")},
    ),
    "linear-rank-2": (lambda: nn.Linear(64, 24), (5, 64), {"rotation": CHANNEL}),
    "linear-rank-3": (lambda: nn.Linear(64, 24), (2, 5, 64), {"rotation": CHANNEL}),
    "linear-every": (
        lambda: nn.Linear(96, 24),
        (2, 5, 96),
        {"rotation": EVERY, "signs": True},
    ),
    "linear-plus": (
        lambda: nn.Linear(96, 24),
        (2, 5, 96),
        {"rotation": EVERY, "signs": True, "centred": True, "grid": "affine"},
    ),
    "linear-odd": (lambda: nn.Linear(35, 3, bias=False), (7, 35), {"grid": "affine", "bits": 8}),
    "conv1d": (
        lambda: nn.Conv1d(64, 24, 3, padding=1, stride=2),
        (2, 64, 9),
        {"rotation": EVERY},
    ),
    "conv1d-plus": (
        lambda: nn.Conv1d(32, 24, 3, padding=1),
        (2, 32, 9),
        {"rotation": EVERY, "grid": "affine", "centred": True},
    ),
    **{
        f"bits-w{w}a{a}": (
            lambda: conv(32, 9, padding=1),
            (2, 32, 5, 5),
            {"rotation": CHANNEL, "weight_bits": w, "bits": a},
        )
        for w, a in ((2, 4), (3, 3), (5, 5), (6, 6), (7, 7), (8, 3))
    },
}


def fake_codes(layer: QuantizedLayer, x: Tensor) -> Tensor:
    """What the fake-quantized layer multiplies, in its own float32, before it rotates back."""
    return layer.activation(layer.quantizer_input(x), layer.step.row)


def in_float64(layer: QuantizedLayer, codes: Tensor, x: Tensor) -> Tensor:
    """The fake-quantized layer from its codes on, in float64."""
    row = layer.step.row
    scale = layer.activation._tables(row)[0][0 if layer.activation.steps == 1 else row]
    x_hat = codes.double() * scale.double()
    rotation = layer.rotation_of(x)
    if rotation is not None:
        x_hat = rotation.inverse(x_hat)
    x_hat = layer._uncentred(x_hat)
    weight = layer.weight.effective_codes(row).double() - layer.weight.zero.double()
    sizes = layer.weight.scale if layer.weight.steps is None else layer.weight.scale[row]
    bias = layer.bias
    layer.bias = None if bias is None else bias.double()
    out = layer._operate(x_hat, weight * sizes.double())
    layer.bias = bias
    return out


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_codes_and_outputs_are_the_fake_layers(case: str, make_layer: Any, integer_of: Any) -> None:
    source, shape, options = CASES[case]
    layer, x = make_layer(source(), shape, **options)
    layouts = [x, x.contiguous(memory_format=torch.channels_last)] if x.dim() == 4 else [x]
    for t in layer.step.timesteps:
        layer.step.set(t)
        for image in layouts:
            for kernel in KERNELS:
                compare(layer, integer_of(layer, kernel), image)


def compare(layer: QuantizedLayer, integer: IntegerLayer, x: Tensor) -> None:
    codes = integer.codes(x)
    grid = integer.grid(layer.step.row)
    assert torch.equal(codes * grid.scale, fake_codes(layer, x))  # bit for bit
    assert codes.max() - codes.min() >= (grid.high - grid.low) / 2  # the input spans the grid
    expected = in_float64(layer, codes, x)
    out = integer(x)
    assert out.dtype == torch.float32
    assert out.shape == expected.shape
    assert (out - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert (out - layer(x)).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("case", ["conv", "large-block", "plus", "width-a4", "linear-every"])
@torch.no_grad()
def test_the_other_transform(case: str, make_layer: Any, integer_of: Any) -> None:
    source, shape, options = CASES[case]
    layer, x = make_layer(source(), shape, **options)
    layer.use_transform("butterfly")
    layouts = [x, x.contiguous(memory_format=torch.channels_last)] if x.dim() == 4 else [x]
    for image in layouts:
        compare(layer, integer_of(layer, KERNELS[-1]), image)


def test_kernels_agree_on_the_sums(make_layer: Any, integer_of: Any) -> None:
    """With a scale of one the outputs are the accumulators, rounded to float32 once."""
    layer, x = make_layer(conv(64, 40, padding=1), (2, 64, 7, 9), rotation=CHANNEL, bits=8)
    outputs = []
    for kernel in KERNELS:
        integer = integer_of(layer, kernel)
        integer.weight_scale.fill_(1)
        integer.scale.fill_(2.0**2.5)  # undone by the 2^(-k/2) of the rotation
        integer.bias = None
        outputs.append(integer(x * 20))
    assert all(torch.equal(out, out.round()) for out in outputs)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_ties_round_to_even_as_in_the_fake_layer(make_layer: Any, integer_of: Any) -> None:
    layer, _ = make_layer(nn.Linear(32, 4), (5, 32))
    layer.activation.initialise(0.5)
    x = (torch.arange(-16, 16) / 4 + 0.25).repeat(3, 1)  # every second one is a tie
    integer = integer_of(layer, choose_kernel("auto")[0])
    assert torch.equal(integer.codes(x) * 0.5, fake_codes(layer, x))


@pytest.mark.parametrize("kernel", KERNELS)
def test_pieces_do_not_change_codes(
    kernel: type[Kernel], make_layer: Any, integer_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = make_layer(conv(64, 8, padding=1), (3, 64, 17, 19), rotation=CHANNEL)
    x = x.contiguous(memory_format=torch.channels_last)
    integer = integer_of(layer, kernel)
    whole = integer(x)
    monkeypatch.setattr("hqdm_bench.integer.codes.PIECE", 64 * 37)
    assert torch.equal(integer(x), whole)


@pytest.mark.parametrize("seed", range(40))
@torch.no_grad()
def test_random_layers(seed: int, make_layer: Any, integer_of: Any) -> None:
    """Any kernel, stride, padding, dilation, bits, grid and rotation, on every backend."""
    random = torch.Generator().manual_seed(seed)

    def pick(*choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (1,), generator=random))]

    channels, rotation = pick(1, 3, 24, 33, 64, 96), pick(None, CHANNEL, EVERY, WIDTH, Rotation(3))
    source = conv(
        channels,
        pick(1, 5, 17, 32),
        (pick(1, 2, 3), pick(1, 3, 5)),
        stride=(pick(1, 2), pick(1, 2, 3)),
        padding=(pick(0, 1, 3), pick(0, 2)),
        dilation=(pick(1, 2), 1),
        bias=pick(True, False),
    )
    grid = pick("symmetric", "full_range", "affine")
    layer, x = make_layer(
        source,
        (pick(1, 3), channels, pick(5, 8), pick(7, 16)),
        weight_bits=pick(*range(2, 9)),
        bits=pick(*range(3, 9)),
        grid=grid,
        rotation=rotation,
        signs=pick(True, False) and rotation in (CHANNEL, EVERY),
        centred=grid == "affine" and rotation is not WIDTH and pick(True, False),
        seed=seed,
    )
    for image in (x, x.contiguous(memory_format=torch.channels_last)):
        for kernel in KERNELS:
            compare(layer, integer_of(layer, kernel), image)
