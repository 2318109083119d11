"""Quantized attention against plain formulas, its grids, and what it costs."""

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.attention import CrossAttention, QKVAttention, TokenAttention
from hqdm_bench.quantization import (
    EmaObserver,
    LearnedStep,
    MinMaxObserver,
    QuantizedAttention,
    QuantizedQKVAttention,
    QuantizedTokenAttention,
    StepIndex,
    UnsignedStep,
    coverage,
    quantize_attention,
    unsigned_mse_scale,
)
from hqdm_bench.quantization.reference import plain_fake_quantize
from hqdm_bench.quantization.sizes import operand_bytes

TIMES = (1, 501)
BATCH, HEADS, TOKENS, CONTEXT, WIDTH = 2, 3, 5, 4, 6


def normal(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64)


def quantized(source: nn.Module, *, symmetric: bool = False, rows: int = 2) -> QuantizedAttention:
    """In double precision, with grids that clip some values, others for each row."""
    holder = nn.Sequential(source, nn.Linear(1, 1))  # gives type and device
    step = StepIndex(TIMES)
    quantize_attention(
        holder.double(),
        lambda: LearnedStep(4, rows, symmetric=symmetric),
        lambda: UnsignedStep(4, rows),
        step,
    )
    made = holder[0]
    assert isinstance(made, QuantizedAttention)
    for place, (name, operand) in enumerate(made.named_operands().items()):
        scale = 0.05 if name == "probabilities" else 0.2 + 0.03 * place
        for row in range(rows):
            operand.activation.initialise(scale * (1 + 0.2 * row), 6 + place, row)
    step.set(TIMES[0])
    return made


def rounded(attention: QuantizedAttention, name: str, x: Tensor, row: int) -> Tensor:
    quantizer = attention.named_operands()[name].activation
    zero = None if quantizer.zero is None else quantizer.zero[row]
    return plain_fake_quantize(x, quantizer.scale[row], zero, *quantizer.limits)


def plain_tokens(
    attention: QuantizedAttention, query: Tensor, key: Tensor, value: Tensor, row: int
) -> Tensor:
    """One head of one image after the other: the formula on quantized operands."""
    query, key, value = (
        rounded(attention, name, x, row)
        for name, x in (("query", query), ("key", key), ("value", value))
    )
    scores = torch.einsum("bhtd,bhld->bhtl", query, key) / WIDTH**0.5
    weights = torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True)
    weights = rounded(attention, "probabilities", weights, row)
    return torch.einsum("bhtl,bhld->bhtd", weights, value)


def plain_pixels(attention: QuantizedAttention, qkv: Tensor, row: int) -> Tensor:
    """Rows of qkv are ordered (head, q | k | v, channel); q and k are scaled, then quantized."""
    parts = qkv.view(BATCH, HEADS, 3, WIDTH, TOKENS)
    query = rounded(attention, "query", parts[:, :, 0] / WIDTH**0.25, row)
    key = rounded(attention, "key", parts[:, :, 1] / WIDTH**0.25, row)
    scores = torch.einsum("bhct,bhcs->bhts", query, key)
    weights = torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True)
    weights = rounded(attention, "probabilities", weights, row)
    value = rounded(attention, "value", parts[:, :, 2], row)
    return torch.einsum("bhts,bhcs->bhct", weights, value).reshape(BATCH, -1, TOKENS)


def tokens_and_context() -> tuple[Tensor, Tensor, Tensor]:
    return (
        normal(BATCH, HEADS, TOKENS, WIDTH, seed=1),
        normal(BATCH, HEADS, CONTEXT, WIDTH, seed=2),
        normal(BATCH, HEADS, CONTEXT, WIDTH, seed=3),
    )


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("row", [0, 1])
def test_tokens_are_the_formula(symmetric: bool, row: int) -> None:
    attention = quantized(TokenAttention(WIDTH**-0.5), symmetric=symmetric)
    attention.query.step.set(TIMES[row])
    inputs = tokens_and_context()
    expected = plain_tokens(attention, *inputs, row)
    torch.testing.assert_close(attention(*inputs), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(expected, plain_tokens(attention, *inputs, 1 - row))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("row", [0, 1])
def test_pixels_are_the_formula(symmetric: bool, row: int) -> None:
    attention = quantized(QKVAttention(HEADS), symmetric=symmetric)
    attention.query.step.set(TIMES[row])
    qkv = normal(BATCH, 3 * HEADS * WIDTH, TOKENS)
    expected = plain_pixels(attention, qkv, row)
    torch.testing.assert_close(attention(qkv), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(expected, plain_pixels(attention, qkv, 1 - row))


def test_gradients_are_those_of_the_formula() -> None:
    cases = [
        (TokenAttention(WIDTH**-0.5), tokens_and_context(), plain_tokens),
        (QKVAttention(HEADS), (normal(BATCH, 3 * HEADS * WIDTH, TOKENS),), plain_pixels),
    ]
    for source, inputs, formula in cases:
        attention = quantized(source)
        inputs = tuple(x.requires_grad_() for x in inputs)
        scales = attention.step_sizes()
        assert len(scales) == 4
        found = torch.autograd.grad(attention(*inputs).square().sum(), (*inputs, *scales))
        loss = formula(attention, *inputs, 0).square().sum()
        for one, other in zip(found, torch.autograd.grad(loss, (*inputs, *scales)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
        assert all(bool(gradient[0] != 0) and gradient[1] == 0 for gradient in found[len(inputs) :])


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_fine_grids_are_full_precision(kind: str) -> None:
    source = TokenAttention(WIDTH**-0.5) if kind == "tokens" else QKVAttention(HEADS)
    inputs = tokens_and_context() if kind == "tokens" else (normal(BATCH, 54, TOKENS),)
    holder = nn.Sequential(source, nn.Linear(1, 1)).double()
    step = StepIndex(TIMES)
    quantize_attention(holder, lambda: LearnedStep(16), lambda: UnsignedStep(16), step)
    for operand in holder[0].operands[:3]:
        operand.activation.initialise(8 / 2**16, 2**15)
    holder[0].probabilities.activation.initialise(1 / (2**16 - 1))
    step.set(TIMES[0])
    torch.testing.assert_close(holder[0](*inputs), source(*inputs), rtol=0, atol=2e-4)


def test_the_unsigned_search_is_the_best_of_eighty_maxima() -> None:
    x = torch.softmax(4 * normal(40, 12), dim=-1)
    candidates = [x.max() * (1 - 0.01 * i) / 15 for i in range(80)]
    errors = [((x / s).round().clamp(0, 15) * s - x).abs().pow(2.4).mean() for s in candidates]
    best = candidates[int(torch.stack(errors).argmin())]
    assert best < candidates[0]  # it clips
    torch.testing.assert_close(unsigned_mse_scale(x, 4), best, rtol=1e-14, atol=0)
    assert unsigned_mse_scale(torch.zeros(3), 8) > 0
    with pytest.raises(BenchError, match="NaN or infinite"):
        unsigned_mse_scale(torch.tensor([float("nan")]), 8)


def test_unsigned_values_have_no_zero_point_and_all_codes() -> None:
    quantizer = UnsignedStep(8, 2).double()
    assert set(quantizer.state_dict()) == {"scale"}
    assert quantizer.limits == (0, 255)
    ones = torch.ones(7, dtype=torch.float64)  # of a context of one token
    quantizer.calibrate(ones, 0)
    torch.testing.assert_close(quantizer(ones, 0), ones, rtol=1e-14, atol=0)
    x = torch.linspace(0.25, 1, 400, dtype=torch.float64)  # far from zero, which stays a code
    quantizer.initialise(1 / 255, step=1)
    torch.testing.assert_close(quantizer(x, 1), (x * 255).round() / 255, rtol=1e-14, atol=0)
    assert quantizer(torch.tensor([-0.3, 2.0], dtype=torch.float64), 1).tolist() == [0, 1]


def test_a_step_below_zero_is_its_magnitude() -> None:
    """A few updates of 4e-4 carry 1/255 through zero; it has to come back."""
    x = torch.softmax(normal(6, 5), dim=-1)
    quantizer, found = UnsignedStep(8).double(), []
    for sign in (1, -1):
        quantizer.initialise(sign / 255)
        out = quantizer(x, 0)
        (gradient,) = torch.autograd.grad((out - x * 1.1).square().sum(), quantizer.scale)
        found.append((out, gradient * sign))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][1].item() != 0


def test_observers_set_the_largest_value() -> None:
    first, second = torch.tensor([0.1, 0.9]), torch.tensor([0.2, 0.5])
    for observer, largest in ((MinMaxObserver(), 0.9), (EmaObserver(0.75), 0.8)):
        quantizer = UnsignedStep(8)
        for x in (first, second):
            observer.observe(x)
        observer.store(quantizer)
        assert quantizer.scale.item() == pytest.approx(largest / 255)


class OwnAttention(TokenAttention):
    """Of a class that nobody knows."""


def test_known_classes_are_replaced_wherever_they_are() -> None:
    network = nn.ModuleDict(
        {
            "cross": CrossAttention(12, 8, 2, 0.0),
            "pixels": QKVAttention(2),
            "own": OwnAttention(1.0),
        }
    ).eval()
    keys = list(network.state_dict())
    names = quantize_attention(
        network, lambda: LearnedStep(4), lambda: UnsignedStep(8), StepIndex(TIMES)
    )
    assert names == ["cross.attention", "pixels"]
    assert isinstance(network["cross"].attention, QuantizedTokenAttention)
    assert isinstance(network["pixels"], QuantizedQKVAttention)
    assert type(network["own"]) is OwnAttention
    assert not network["pixels"].training
    own = [key for key in network.state_dict() if ".activation." not in key]
    assert own == keys
    plain = nn.Sequential(nn.Linear(2, 2))
    assert quantize_attention(plain, nn.Identity, nn.Identity, StepIndex(TIMES)) == []
    fused = nn.Sequential(nn.MultiheadAttention(4, 2))
    with pytest.raises(BenchError, match="has no attention whose products can be quantized"):
        quantize_attention(fused, nn.Identity, nn.Identity, StepIndex(TIMES))


class Net(nn.Module):
    """Both kinds of attention, with a layer to be counted."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 12)
        self.pixels, self.tokens = QKVAttention(2), TokenAttention(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pixels(self.first(x).transpose(1, 2))  # (B, 12, T) to (B, 4, T)
        y = y.transpose(1, 2)[:, None]
        return self.tokens(y, y[:, :, :3], y[:, :, :3])


def test_coverage_by_hand() -> None:
    network, x = Net(), torch.zeros(2, 7, 8)
    plain = coverage(network, (x,))
    assert plain["attention"] == {"products": 0, "macs": 0, "bits": []}
    step = StepIndex(TIMES)
    step.set(1)
    names = quantize_attention(network, lambda: LearnedStep(4, 2), lambda: UnsignedStep(8, 2), step)
    for name in names:
        for operand in network.get_submodule(name).operands:
            operand.activation.initialise(0.1, 3)
    found = coverage(network, (x,))
    pixels, tokens = 2 * 2 * 7 * 7 * 2, 2 * 7 * 3 * 4  # of each product
    assert found["attention"] == {
        "products": 4,
        "macs": 2 * (pixels + tokens),
        "bits": ["a4a4", "a8a4"],
    }
    # At two steps: three operands with a step size and a zero-point of a byte, one with the former.
    assert operand_bytes(network.pixels) == 2 * (3 * (4 + 1) + 4)
    assert found["table_bytes"] == 2 * operand_bytes(network.pixels)
    rest = {key: value for key, value in found.items() if key not in ("attention", "table_bytes")}
    assert rest == {key: plain[key] for key in rest}


def test_a_step_of_sixteen_bits_is_not_learned() -> None:
    step = StepIndex(TIMES)
    network = nn.Sequential(TokenAttention(1.0), nn.Linear(1, 1))
    quantize_attention(network, lambda: LearnedStep(16), lambda: UnsignedStep(16), step)
    attention = network[0]
    expected = [attention.query, attention.key, attention.value]
    assert [id(scale) for scale in attention.step_sizes()] == [
        id(operand.activation.scale) for operand in expected
    ]
