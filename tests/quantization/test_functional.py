"""Fused quantizers against autograd through the plain formulas."""

import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.quantization.functional import fake_quantize, lora_codes, lora_fake_quantize
from hqdm_bench.quantization.reference import plain_fake_quantize, plain_lora_fake_quantize

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def normal(generator, *shape, scale=1.0):
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale


def plain(x, scales, zeros, step, limits, rotation=None):
    zero = None if zeros is None else zeros[step]
    y = x if rotation is None else rotation(x)
    y = plain_fake_quantize(y, scales[step], zero, *limits)
    return y if rotation is None else rotation(y)


def outcome(function, inputs, cotangent, *arguments):
    """Value and gradients with respect to the inputs that are tensors."""
    leaves = [None if one is None else one.clone().requires_grad_() for one in inputs]
    value = function(*leaves, *arguments)
    (value * cotangent).sum().backward()
    return [value.detach(), *(leaf.grad for leaf in leaves if leaf is not None)]


@pytest.mark.parametrize("rotated", [False, True], ids=["plain", "rotated"])
@pytest.mark.parametrize("bits", range(3, 9))
@pytest.mark.parametrize("kind", ["affine", "symmetric"])
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "rank3"])
def test_activations_match_the_plain_formula(generator, kind, bits, rotated, layout):
    shape, dim = ((2, 5, 32), -1) if layout == "rank3" else ((2, 32, 3, 4), 1)
    x, cotangent = normal(generator, *shape), normal(generator, *shape)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    scales = torch.linspace(3, 5, 4, dtype=torch.float64) / 2**bits  # some values are clipped
    limit = 2 ** (bits - 1) - 1
    zeros, limits = None, (-limit, limit)
    if kind == "affine":
        zeros, limits = (
            2 ** (bits - 1) + torch.tensor([0.3, -0.7, 0.1, 0.45]).double(),
            (0, 2**bits - 1),
        )
    arguments = (2, limits, BlockRotation(5, dim) if rotated else None)
    ours = outcome(fake_quantize, (x, scales, zeros), cotangent, *arguments)
    expected = outcome(plain, (x, scales, zeros), cotangent, *arguments)
    assert len(ours) == (4 if kind == "affine" else 3)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)
    assert ours[2][2] != 0
    assert torch.equal(ours[2][[0, 1, 3]], torch.zeros(3).double())
    with torch.no_grad():
        torch.testing.assert_close(fake_quantize(x, scales, zeros, *arguments), ours[0], **EXACT)


def test_rounding_and_clipping_by_hand():
    """Halves go to even; the limits themselves pass the gradient, one beyond does not."""
    x = torch.tensor([-1.25, -1.0, -0.75, 0.25, 0.75, 3.4, 3.5, 3.6, 9.0]).double().requires_grad_()
    scales = torch.ones(1).double().requires_grad_()
    zeros = torch.ones(1).double().requires_grad_()
    out = fake_quantize(x, scales, zeros, 0, (0, 4))
    assert out.tolist() == [-1, -1, -1, 0, 1, 3, 3, 3, 3]
    half = fake_quantize(torch.tensor([0.5, 1.5, 2.5, -0.5]).double(), scales, None, 0, (-7, 7))
    assert half.tolist() == [0, 2, 2, 0]
    out.sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0]  # 3.5 rounds to 4, above the limit
    assert zeros.grad.item() == -3
    inside = torch.tensor([-1 + 1.25, 0, -1 + 0.75, -0.25, 0.25, 3 - 3.4]).sum().item()
    assert scales.grad.item() == pytest.approx(inside + 3 * 3)


def test_negative_scales_follow_the_formula_too(generator):
    """Nothing keeps a trained step size positive; the released code has no guard either."""
    x, cotangent = normal(generator, 4, 8), normal(generator, 4, 8)
    scales = torch.tensor([-0.3]).double()
    ours = outcome(fake_quantize, (x, scales, None), cotangent, 0, (-7, 7))
    expected = outcome(plain, (x, scales, None), cotangent, 0, (-7, 7))
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


def test_an_uncalibrated_entry_is_an_error():
    with pytest.raises(BenchError, match="NaN at step 1"):
        fake_quantize(torch.ones(3), torch.tensor([1.0, float("nan")]), None, 1, (-7, 7))


def lora_inputs(generator, shape, bits, base, same_scale=True):
    c_out, levels = shape[0], 2**bits - 1
    column = (c_out, *[1] * (len(shape) - 1))
    scale = torch.rand(column, generator=generator, dtype=torch.float64) * 0.02 + 0.01
    base_scale = scale.clone() if same_scale else scale * 1.07
    zero = torch.randint(0, levels + 1, column, generator=generator).double()
    lora_A = normal(generator, 4, *shape[1:])
    lora_B = normal(generator, c_out, 4, *[1] * (len(shape) - 2), scale=0.02)
    if base == "codes":
        start = torch.randint(0, levels + 1, shape, generator=generator).to(torch.uint8)
        return (lora_A, lora_B, scale, base_scale), zero, start, levels
    return (lora_A, lora_B, scale), zero, normal(generator, *shape, scale=0.1), levels


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("base", ["codes", "two scales", "float"])
@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (7, 12), (4, 6, 1)])
def test_weights_match_the_plain_formula(generator, shape, base, bits):
    kind = "float" if base == "float" else "codes"
    inputs, zero, start, levels = lora_inputs(generator, shape, bits, kind, base == "codes")

    def call(function):
        def run(lora_A, lora_B, scale, base_scale=None):
            return function(lora_A, lora_B, scale, zero, start, base_scale, levels)

        return run

    cotangent = normal(generator, *shape)
    ours = outcome(call(lora_fake_quantize), inputs, cotangent)
    expected = outcome(call(plain_lora_fake_quantize), inputs, cotangent)
    assert len(ours) == len(inputs) + 1
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)
    with torch.no_grad():
        codes = call(lora_codes)(*inputs).view(shape)
        assert torch.equal(call(lora_fake_quantize)(*inputs), ours[0])
    assert codes.min() >= 0
    assert codes.max() <= levels
    assert torch.equal(codes, codes.round())
    torch.testing.assert_close((codes - zero) * inputs[2], ours[0], **EXACT)


def test_weight_ties_round_before_the_zero_point_is_added():
    """round(0.5) + 1 = 1, whereas round(0.5 + 1) would be 2."""
    one = torch.ones(1, 1).double()
    codes = lora_codes(one, one / 2, one, one, torch.ones(1, 1, dtype=torch.uint8), one, 3)
    assert codes.item() == 1


def test_clipped_weights_give_no_gradient_to_the_update():
    A, B = torch.ones(1, 3).double().requires_grad_(), torch.ones(2, 1).double().requires_grad_()
    scale = torch.tensor([[0.25], [1.0]]).double().requires_grad_()
    codes = torch.ones(2, 3, dtype=torch.uint8)
    weight = lora_fake_quantize(A, B, scale, torch.ones(2, 1).double(), codes, scale, 3)
    weight.sum().backward()
    assert weight.tolist() == [[0.5] * 3, [1.0] * 3]  # row 0 is pushed beyond code 3
    assert B.grad.tolist() == [[0.0], [3.0]]
    assert A.grad.tolist() == [[1.0] * 3]
