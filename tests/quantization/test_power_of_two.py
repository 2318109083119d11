"""Power-of-two factors of channels, against the released code's and plain formulas.

Numbers given as constants are what the released code of DMQ (LeeDongYeun/dmq, 48ce8bc) computes in
double precision on the same inputs.
"""

import math

import pytest
import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.quantization import (
    Blend,
    ShiftedTable,
    best_exponents,
    vote,
)

DOUBLE = torch.float64
LIMITS = (0, 15)


@pytest.fixture
def x() -> Tensor:
    """Channels of different widths, one of which is another in half of the samples."""
    i = torch.arange(20 * 6 * 16, dtype=DOUBLE)
    wave = (torch.sin(i * 0.37) + 0.5 * torch.cos(i * i * 0.01 * 0.37)).reshape(20, 6, 4, 4)
    wave *= torch.tensor([1, 0.4, 0.2, 0.1, 0.05, 0.7], dtype=DOUBLE).view(1, 6, 1, 1)
    wave[10:, 4] *= 9
    return wave


def grid(x: Tensor, bits: int = 4) -> tuple[Tensor, Tensor]:
    scale = (x.max() - x.min()) / (2**bits - 1)
    return scale, torch.round(-x.min() / scale)


@pytest.mark.parametrize(("agreement", "fifth"), [(0.0, 0.125), (0.45, 0.125), (0.85, 1.0)])
def test_factors_are_the_released_ones(x: Tensor, agreement: float, fifth: float) -> None:
    scale, zero = grid(x)
    assert scale.item() == pytest.approx(0.19937416486125478, rel=1e-12)
    assert zero == 8
    factors = torch.exp2(-vote(best_exponents(x, scale, zero, LIMITS), agreement))
    assert factors.tolist() == [1, 0.5, 0.25, 0.125, fifth, 1]


def test_shares_of_the_votes_are_the_released_ones(x: Tensor) -> None:
    chosen = best_exponents(x, *grid(x), limits=LIMITS)
    share = (chosen == vote(chosen, 0.0)).sum(0) / len(x)
    assert share.tolist() == pytest.approx([1.0, 0.9, 0.9, 1.0, 0.5, 0.8])


def test_each_sample_takes_the_least_error(x: Tensor) -> None:
    scale, zero = grid(x)
    chosen = best_exponents(x, scale, zero, limits=LIMITS)
    for n in range(0, 20, 5):
        for c in range(6):
            errors = []
            for k in range(4):
                step = float(scale) / 2**k
                codes = (torch.round(x[n, c] / step) + zero).clamp(0, 15)
                errors.append(float(((codes - zero) * step - x[n, c]).square().mean()))
            assert math.isclose(errors[int(chosen[n, c])], min(errors))


def test_tokens_have_their_channels_last(x: Tensor) -> None:
    tokens = x.flatten(2).transpose(1, 2)
    scale, zero = grid(x)
    assert torch.equal(
        best_exponents(tokens, scale, zero, LIMITS, axis=-1), best_exponents(x, scale, zero, LIMITS)
    )
    assert best_exponents(x[:, :, 0, 0], scale, zero, LIMITS).shape == (20, 6)


def test_a_vote_takes_the_majority_where_it_is_large_enough() -> None:
    chosen = torch.tensor([[0, 3, 2, 1], [0, 3, 2, 3], [0, 3, 1, 1], [0, 1, 0, 3]])
    assert vote(chosen, 0.5).tolist() == [0, 3, 2, 3]  # of two as frequent the larger k
    assert vote(chosen, 0.75).tolist() == [0, 3, 0, 0]
    assert vote(chosen, 0.8).tolist() == [0, 0, 0, 0]
    with pytest.raises(BenchError, match="share from 0 to 1"):
        vote(chosen, 1.2)


def table(x: Tensor, agreement: float = 0.85) -> ShiftedTable:
    quantizer = ShiftedTable(4, 2, 6).double()
    quantizer.initialise(*grid(x), step=1)
    quantizer.choose_factors(quantizer.preferences(x, 1), 1, agreement)
    return quantizer


@pytest.mark.parametrize(
    ("agreement", "total", "error"),
    [(0.0, 2.5918641431963083, 9.686238008216037), (0.85, 5.258493598215593, 3.325007524157507)],
)
def test_the_quantizer_is_the_released_one(
    x: Tensor, agreement: float, total: float, error: float
) -> None:
    out = table(x, agreement)(x, 1).detach()
    assert out.sum().item() == pytest.approx(total, rel=1e-9)
    assert (out - x).square().sum().item() == pytest.approx(error, rel=1e-9)


def test_every_channel_is_on_its_own_grid(x: Tensor) -> None:
    quantizer = table(x)
    scale, zero = grid(x)
    codes = quantizer(x, 1).detach() / (scale * quantizer.factors[1].view(1, 6, 1, 1)) + zero
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-9)
    assert codes.round().unique().tolist() == list(range(16))


def test_integers_with_shifted_weights_give_the_product(x: Tensor) -> None:
    """sum over c of w_c 2^-k_c (q - z) s: the factor moves to the weight, exactly."""
    quantizer = table(x)
    scale, zero = grid(x)
    factors = quantizer.factors[1]
    weight = torch.linspace(-1, 1, 18, dtype=DOUBLE).view(3, 6)
    expected = torch.einsum("oc,nchw->nohw", weight, quantizer(x, 1).detach())
    step = scale * factors.view(1, 6, 1, 1)
    codes = (torch.round(x / step) + zero).clamp(0, 15) - zero
    shifted = torch.einsum("oc,nchw->nohw", weight * factors, codes) * scale
    torch.testing.assert_close(shifted, expected, rtol=1e-12, atol=1e-12)


def test_factors_belong_to_a_step(x: Tensor) -> None:
    quantizer = table(x)
    assert quantizer.factors[0].tolist() == [1] * 6
    with pytest.raises(BenchError, match="row 0 has no step size"):
        quantizer.preferences(x, 0)
    with pytest.raises(BenchError, match="a rotation mixes channels"):
        quantizer(x, 1, BlockRotation(1, 1))
    quantizer.initialise(*grid(x), step=0)
    torch.testing.assert_close(quantizer(x, Blend(0, 0.6)), quantizer(x, 1))  # of the nearer
    assert not torch.equal(quantizer(x, Blend(0, 0.4)), quantizer(x, 1))
    quantizer.forget()
    assert (quantizer.factors == 1).all()


def test_shared_factors_serve_every_step(x: Tensor) -> None:
    quantizer = ShiftedTable(4, 2, 6, shared=True).double()
    quantizer.initialise(*grid(x))
    chosen = torch.cat([quantizer.preferences(x, row) for row in (0, 1)])
    quantizer.choose_factors(chosen, 0)
    assert quantizer.factors.shape == (1, 6)
    assert torch.equal(quantizer(x, 0), quantizer(x, 1))
    assert torch.equal(quantizer(x, 1), table(x)(x, 1))


def test_a_symmetric_grid_has_negative_codes(x: Tensor) -> None:
    quantizer = ShiftedTable(4, 1, 6, symmetric=True).double()
    quantizer.initialise(x.abs().max() / 7)
    quantizer.choose_factors(quantizer.preferences(x, 0), 0)
    assert quantizer.factors[0, 3] == 0.125
    step = quantizer.scale.detach() * quantizer.factors[0].view(1, 6, 1, 1)
    codes = (x / step).round().clamp(-8, 7)
    torch.testing.assert_close(quantizer(x, 0).detach(), codes * step, rtol=1e-12, atol=0)
