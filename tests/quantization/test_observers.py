"""Ranges from batches, and the learned step, against their formulas."""

import pytest
import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import (
    AffineTable,
    EmaObserver,
    LearnedStep,
    MinMaxObserver,
    MseObserver,
    Observer,
    SymmetricTable,
    minmax_grid,
    mse_grid,
    symmetric_mse_scale,
)
from hqdm_bench.quantization.observers import range_grid, thin
from hqdm_bench.quantization.reference import plain_fake_quantize


def normal(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64)


BATCHES = [normal(4, 9, seed=seed) * (seed + 1) + seed for seed in range(3)]


def stored(observer: Observer, steps: int = 2, row: int | None = 1) -> AffineTable:
    table = AffineTable(4, steps).double()
    for batch in BATCHES:
        observer.observe(batch)
    observer.store(table, row)
    return table


def test_extremes_of_all_batches_are_the_range_of_their_union() -> None:
    table = stored(MinMaxObserver())
    grid = minmax_grid(torch.cat(BATCHES), 4, per_channel=False)
    assert table.scale[1] == grid.scale
    assert table.zero[1] == grid.zero
    assert table.scale[0].isnan()


def test_without_zero_the_range_is_the_data() -> None:
    observer = MinMaxObserver(include_zero=False)
    observer.observe(torch.tensor([5.0, 8.0]))
    table = AffineTable(4, 1)
    observer.store(table)
    assert table.scale.item() == pytest.approx(3 / 15)
    assert table.zero.item() == -25


def test_the_moving_average_of_the_extremes() -> None:
    low, high = BATCHES[0].min(), BATCHES[0].max()
    for batch in BATCHES[1:]:
        low, high = 0.9 * low + 0.1 * batch.min(), 0.9 * high + 0.1 * batch.max()
    table = stored(EmaObserver(0.9))
    torch.testing.assert_close(table.scale[1].detach(), (high - low) / 15)
    assert table.zero[1] == (-low / ((high - low) / 15)).round()
    assert EmaObserver().momentum == 0.95


def test_the_search_is_over_all_batches_and_the_quantizers_own() -> None:
    table = stored(MseObserver())
    grid = mse_grid(torch.cat([batch.flatten() for batch in BATCHES]), 4, per_channel=False)
    assert table.scale[1] == grid.scale
    observer = MseObserver(sample=5)
    observer.observe(BATCHES[0])
    assert torch.equal(observer.kept[0], thin(BATCHES[0], 5))
    assert len(observer.kept[0]) <= 5


def test_a_symmetric_quantizer_takes_the_larger_extreme() -> None:
    observer = MinMaxObserver()
    observer.observe(torch.tensor([-3.0, 1.4]))
    table = SymmetricTable(4, 2)
    observer.store(table)
    torch.testing.assert_close(table.scale.detach(), torch.full((2,), 3 / 7))


def test_a_range_without_width_has_a_positive_step() -> None:
    zero = torch.zeros(())
    assert range_grid(zero, zero, 4).scale > 0


@pytest.mark.parametrize("observer", [MseObserver(), MinMaxObserver(), EmaObserver()])
def test_an_observer_that_saw_nothing_is_an_error(observer: Observer) -> None:
    with pytest.raises(BenchError, match="has to see a batch"):
        observer.store(AffineTable(4, 1))


def test_a_range_of_broken_data_is_an_error() -> None:
    with pytest.raises(BenchError, match="NaN or infinite"):
        EmaObserver().observe(torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_learned_step_quantizes_on_its_grid(symmetric: bool) -> None:
    x = normal(5, 20)
    quantizer = LearnedStep(4, 2, symmetric=symmetric).double()
    quantizer.calibrate(x, 1)
    assert not quantizer.calibrated
    quantizer.calibrate(3 * x, 0)
    assert quantizer.calibrated
    low, high = (-8, 7) if symmetric else (0, 15)
    zero = None if symmetric else quantizer.zero[1]
    expected = plain_fake_quantize(x, quantizer.scale[1], zero, low, high)
    torch.testing.assert_close(quantizer(x, 1), expected)
    found = symmetric_mse_scale(x, 4, full_range=True)
    if not symmetric:
        found = mse_grid(x, 4, per_channel=False).scale
    torch.testing.assert_close(quantizer.scale[1].detach(), found)
    assert [name for name, _ in quantizer.named_parameters()] == ["scale"]


def test_one_entry_serves_every_step() -> None:
    x, quantizer = normal(3, 7), LearnedStep(4).double()
    quantizer.calibrate(x, 5)
    assert quantizer.calibrated
    assert torch.equal(quantizer(x, 0), quantizer(x, 19))


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_lsq_gradient_is_the_plain_one_over_the_root(symmetric: bool) -> None:
    """1 / sqrt(N Q), Section 2.2 of LSQ; the gradient of the input stays."""
    x = normal(5, 4, 6).requires_grad_()
    gradients = {}
    for rule in ("plain", "lsq"):
        quantizer = LearnedStep(4, symmetric=symmetric, gradient=rule).double()
        quantizer.calibrate(x.detach() / 2)
        out = quantizer(x, 0)
        x.grad = None
        (out * normal(5, 4, 6, seed=3)).sum().backward()
        gradients[rule] = (quantizer.scale.grad.item(), x.grad.clone(), out.detach())
    largest = 7 if symmetric else 15
    assert gradients["lsq"][0] == pytest.approx(gradients["plain"][0] / (24 * largest) ** 0.5)
    assert gradients["plain"][0] != 0
    assert torch.equal(gradients["lsq"][1], gradients["plain"][1])
    assert torch.equal(gradients["lsq"][2], gradients["plain"][2])


def test_a_shuffled_average_does_not_leave_the_last_batches_to_decide() -> None:
    """Batches that widen, as inputs do from timestep to timestep."""
    widths = torch.linspace(1, 2, 200)
    found = []
    for shuffled in (False, True, True):
        observer = EmaObserver(shuffled=shuffled)
        for width in widths:
            observer.observe(torch.stack([-width, width]))
        found.append(float(observer.range[1]))
    assert found[0] > 1.85
    assert found[1] == pytest.approx(1.5, abs=0.15)
    assert found[1] == found[2]
