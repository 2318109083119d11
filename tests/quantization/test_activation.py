import copy

import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation, block_rotate
from hqdm_bench.quantization import (
    AffineStatic,
    AffineTable,
    Blend,
    SymmetricTable,
    mse_grid,
    symmetric_mse_scale,
)


@pytest.fixture
def x(generator):
    return torch.randn(2, 32, 4, 4, generator=generator)


def levels(x_hat):
    return len(x_hat.unique())


@pytest.mark.parametrize("bits", range(3, 9))
def test_bits_limit_the_number_of_levels(x, bits):
    step = x.abs().max().item() / 2**bits
    for module, most in ((AffineTable(bits, 2), 2**bits), (SymmetricTable(bits, 2), 2**bits - 1)):
        module.initialise(step / 2, 2 ** (bits - 1))
        assert levels(module(x, 0)) <= most
    coarse = SymmetricTable(3, 1)
    coarse.initialise(x.abs().max().item() / 9)
    assert levels(coarse(x, 0)) == 7  # -3 to 3, the most negative code of three bits is not used


@pytest.mark.parametrize("bits", [2, 9])
@pytest.mark.parametrize(
    "make", [AffineStatic, lambda b: AffineTable(b, 4), lambda b: SymmetricTable(b, 4)]
)
def test_other_widths_are_refused(make, bits):
    with pytest.raises(BenchError, match="3 to 8 bits"):
        make(bits)


def test_tables_are_single_vectors_and_static_has_no_parameter():
    assert {name: p.shape for name, p in AffineTable(4, 20).named_parameters()} == {
        "scale": (20,),
        "zero": (20,),
    }
    assert {name: p.shape for name, p in SymmetricTable(4, 20).named_parameters()} == {
        "scale": (20,)
    }
    assert not list(AffineStatic(8).parameters())
    assert set(AffineStatic(8).state_dict()) == {"scale", "zero"}


def test_an_entry_is_used_only_at_its_step(x):
    table = SymmetricTable(4, 3)
    assert not table.calibrated
    with pytest.raises(BenchError, match="calibrate the student"):
        table(x, 1)
    table.initialise(torch.tensor([0.1, 0.2, 0.4]))
    assert table.calibrated
    for step, scale in enumerate((0.1, 0.2, 0.4)):
        expected = (x / scale).round().clamp(-7, 7) * scale
        torch.testing.assert_close(table(x, step), expected)
    table(x, 1).sum().backward()
    assert table.scale.grad[[0, 2]].tolist() == [0, 0]
    assert table.scale.grad[1] != 0


def test_initialise_sets_one_row_or_all():
    table = AffineTable(4, 3)
    table.initialise(0.5, 7.0)
    table.initialise(0.25, 3.0, step=1)
    assert table.scale.tolist() == [0.5, 0.25, 0.5]
    assert table.zero.tolist() == [7, 3, 7]
    with pytest.raises(BenchError, match="2 values for a table of 3 steps"):
        table.initialise(torch.ones(2))


def test_calibration_stores_the_searched_grid(x):
    grid = mse_grid(x, 4, per_channel=False)
    table = AffineTable(4, 3)
    table.calibrate(x, step=2)
    assert not table.calibrated
    assert table.scale[2] == grid.scale
    assert table.zero[2] == grid.zero
    symmetric = SymmetricTable(4, 3)
    symmetric.calibrate(x)
    assert torch.equal(symmetric.scale.detach(), symmetric_mse_scale(x, 4).expand(3))
    static = AffineStatic(8)
    static.calibrate(x, step=2)
    assert static.scale == mse_grid(x, 8, per_channel=False).scale
    assert torch.equal(static(x, 0), static(x, 19))


def test_rotation_is_around_the_quantizer(x):
    table = SymmetricTable(4, 1)
    table.initialise(0.4)
    expected = block_rotate(table(block_rotate(x, 5, 1), 0), 5, 1)
    torch.testing.assert_close(table(x, 0, BlockRotation(5, 1)), expected)


def test_static_passes_the_gradient_to_its_input(x):
    static = AffineStatic(8)
    static.calibrate(x)
    leaf = x.clone().requires_grad_()
    static(leaf, 0).sum().backward()
    assert set(leaf.grad.unique().tolist()) <= {0.0, 1.0}
    assert leaf.grad.mean() > 0.9


def test_states_round_trip(x):
    table = AffineTable(4, 3)
    table.initialise(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.5, 2.5, 3.5]))
    fresh = AffineTable(4, 3)
    fresh.load_state_dict(table.state_dict())
    assert torch.equal(fresh(x, 1), table(x, 1))
    assert torch.equal(copy.deepcopy(table)(x, 2), table(x, 2))


def test_full_range_has_one_code_more():
    for bits in (3, 4, 8):
        table = SymmetricTable(bits, 1, full_range=True)
        assert table.limits == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        assert SymmetricTable(bits, 1).limits == (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    table = SymmetricTable(4, 1, full_range=True)
    table.initialise(1.0)
    wide = torch.arange(-20.0, 21.0)
    assert table(wide, 0).unique().tolist() == list(range(-8, 8))


def test_full_range_is_never_worse(generator):
    """Every candidate has one code more, so the best of them cannot make a larger error."""
    better = 0
    for trial in range(30):
        x = torch.randn(500, generator=generator) - 0.2 * (trial % 7)
        x = x * x.abs() ** (0.2 * (trial % 4))
        error = []
        for full_range in (False, True):
            table = SymmetricTable(4, 1, full_range=full_range)
            table.calibrate(x)
            error.append((table(x, 0) - x).abs().pow(2.4).mean().item())
        assert error[1] <= error[0] * (1 + 1e-6)
        scales = torch.linspace(0.05, 1, 200) * x.abs().max() / 7
        best = []
        for low in (-7, -8):
            codes = (x / scales[:, None]).round().clamp(low, 7) * scales[:, None]
            best.append((codes - x).square().mean(1).min().item())
        assert best[1] <= best[0]
        better += best[1] < best[0]
    assert better > 10


@pytest.mark.parametrize("row", [1, Blend(1, 0.25)])
def test_integer_zero_points_are_rounded_where_they_are_used(x, row):
    table, plain = AffineTable(4, 3, integer_zero=True), AffineTable(4, 3)
    zeros = torch.tensor([3.3, 6.6, 8.4])
    for one, points in ((table, zeros), (plain, zeros.round())):
        one.initialise(torch.tensor([0.1, 0.2, 0.3]), points)
    if row == 1:
        assert torch.equal(table(x, row), plain(x, row))
        codes = table(x, row) / table.scale[1]
        torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-5)
    assert levels(table(x, row)) <= 16
    table(x, 1).sum().backward()
    plain(x, 1).sum().backward()
    assert table.zero.grad[1] != 0  # straight through
    torch.testing.assert_close(table.zero.grad, plain.zero.grad)


def test_between_two_rows_the_tables_are_blended(x):
    table, blended = AffineTable(4, 3), AffineTable(4, 1)
    table.initialise(torch.tensor([0.1, 0.2, 0.4]), torch.tensor([3.0, 6.0, 8.0]))
    blended.initialise(0.25, 6.5)
    torch.testing.assert_close(table(x, Blend(1, 0.25)), blended(x, 0))
