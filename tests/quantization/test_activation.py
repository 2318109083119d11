import copy

import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation, block_rotate
from hqdm_bench.quantization import (
    AffineStatic,
    AffineTable,
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
