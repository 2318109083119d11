import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import (
    minmax_grid,
    mse_grid,
    symmetric_limit,
    symmetric_max_scale,
    symmetric_mse_scale,
    weight_grid,
)
from hqdm_bench.quantization.grid import check_activation_bits, check_weight_bits
from hqdm_bench.quantization.search import CPU_TILE, GPU_TILE, candidate_scores

SEARCH = {"max": minmax_grid, "mse": mse_grid}
ACTIVATIONS = (
    "gauss_rank3",
    "gauss_rank4",
    "outlier_rank4",
    "positive_rank3",
    "silu_rank2",
    "silu_rank4",
)


@pytest.mark.parametrize("rule", SEARCH)
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("name", ["conv", "linear"])
def test_weights_bit_for_bit_like_the_authors(initialisers, name, bits, rule):
    weight = initialisers[f"{name}/weight"]
    expected = {
        key: initialisers[f"{name}/b{bits}/{rule}/{key}"]
        for key in ("delta", "zero_point", "fake_quant_weight")
    }
    grid = weight_grid(weight, bits, rule)
    assert torch.equal(grid.scale, expected["delta"])
    assert torch.equal(grid.zero, expected["zero_point"])
    codes = ((weight / grid.scale).round() + grid.zero).clamp(0, 2**bits - 1)
    assert torch.equal((codes - grid.zero) * grid.scale, expected["fake_quant_weight"])
    if rule == "mse":
        best = initialisers[f"{name}/b{bits}/mse/best_index"]
        assert torch.equal(grid.best_index, best.long())


@pytest.mark.parametrize("bits", [8, 4, 3])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_bit_for_bit_like_the_authors(initialisers, name, bits):
    x, prefix = initialisers[f"act/{name}/x"], f"act/{name}/b{bits}/"
    for rule, search in SEARCH.items():
        grid = search(x, bits, per_channel=False)
        assert grid.scale.shape == ()
        assert torch.equal(grid.scale.view(1), initialisers[f"{prefix}{rule}/delta"])
        assert torch.equal(grid.zero.view(1), initialisers[f"{prefix}{rule}/zero_point"])
    assert grid.best_index == initialisers[f"{prefix}mse/best_index"].item()
    symmetric = symmetric_max_scale(x, bits)
    assert torch.equal(symmetric.view(1), initialisers[f"{prefix}symmax/delta"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_score_curve(initialisers, name, dtype):
    """All 80 scores, not only the winner."""
    row = initialisers[f"act/{name}/x"].to(dtype).reshape(1, -1)
    shrink = 1 - 0.01 * torch.arange(80).to(dtype)
    low, high = row.min() * shrink[None], row.max() * shrink[None]
    scales = (high - low) / 15
    zeros = (-low / scales).round()
    scores = candidate_scores(row, scales, -zeros, 15 - zeros)
    expected = initialisers[f"act/{name}/b4/mse/score_curve_f64"].view(1, -1)
    tolerance = 1e-13 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(scores, expected, rtol=tolerance, atol=0)


def brute_force(x, scales, zeros, low, high):
    scores = []
    for scale, zero in zip(scales.tolist(), zeros.tolist(), strict=True):
        codes = ((x.double() / scale).round() + zero).clamp(low, high)
        scores.append(((codes - zero) * scale - x.double()).abs().pow(2.4).mean())
    return int(torch.stack(scores).argmin())


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("size", [CPU_TILE.block + 1, 4 * CPU_TILE.block + 77])
def test_long_rows_find_what_scoring_everything_finds(generator, size, bits):
    """Dropping candidates early must not change the winner."""
    x = torch.randn(size, generator=generator, dtype=torch.float64)
    x = x * torch.linspace(0.2, 2, size).double()  # the first block says little about the rest
    shrink = 1 - 0.01 * torch.arange(80).double()
    scales = (x.max() - x.min()) * shrink / (2**bits - 1)
    zeros = (-x.min() * shrink / scales).round()
    grid = mse_grid(x, bits, per_channel=False)
    assert grid.best_index == brute_force(x, scales, zeros, 0, 2**bits - 1)
    limit = symmetric_limit(bits)
    scales = x.abs().max() * shrink / limit
    best = brute_force(x, scales, torch.zeros(80), -limit, limit)
    torch.testing.assert_close(symmetric_mse_scale(x, bits), scales[best], rtol=1e-14, atol=0)


@pytest.mark.parametrize("per_channel", [False, True])
def test_tiles_of_a_gpu_find_the_same_grid(generator, monkeypatch, per_channel):
    x = torch.randn(24, CPU_TILE.block, generator=generator, dtype=torch.float64)
    usual = mse_grid(x, 4, per_channel=per_channel)
    monkeypatch.setattr("hqdm_bench.quantization.search._tile", lambda rows: GPU_TILE)
    large = mse_grid(x, 4, per_channel=per_channel)
    assert torch.equal(usual.best_index, large.best_index)


def test_channels_are_independent_of_how_they_are_cut(generator):
    rows = torch.randn(300, 700, generator=generator) * torch.rand(300, 1, generator=generator)
    together = mse_grid(rows, 4, per_channel=True)
    assert len(together.best_index.unique()) > 5
    for index in (0, 17, 150, 299):
        alone = mse_grid(rows[index], 4, per_channel=False)
        assert together.scale[index] == alone.scale
        assert together.zero[index] == alone.zero


def test_minmax_always_covers_zero():
    grid = minmax_grid(torch.tensor([[1.0, 3.0], [-3.0, -1.0], [-1.0, 2.0]]), 4, per_channel=True)
    torch.testing.assert_close(grid.scale, torch.tensor([0.2, 0.2, 0.2]))
    assert grid.zero.tolist() == [0, 15, 5]


def test_mse_may_leave_zero_outside(generator):
    """One-sided data keep their raw range, so the zero-point leaves 0..15."""
    grid = mse_grid(10 + torch.rand(1000, generator=generator), 4, per_channel=False)
    assert grid.zero < -100


def test_channels_without_a_range(initialisers):
    weight = initialisers["zero_channel/weight"]
    grid = minmax_grid(weight, 4, per_channel=True)
    assert torch.equal(grid.scale.view(-1), initialisers["zero_channel/b4/max/delta"].view(-1))
    assert torch.equal(grid.zero.view(-1), initialisers["zero_channel/b4/max/zero_point"].view(-1))
    searched = mse_grid(weight, 4, per_channel=True)
    assert searched.scale[0] == grid.scale[0]
    assert torch.isfinite(searched.scale).all()
    for size in (10, 3 * CPU_TILE.block):
        assert mse_grid(torch.zeros(size), 4, per_channel=False).scale == grid.scale[0]
        constant = mse_grid(torch.full((size,), 3.0), 4, per_channel=False)
        torch.testing.assert_close(constant.scale, torch.tensor(0.2))
        assert symmetric_mse_scale(torch.zeros(size), 4) > 0


def test_symmetric_grid_drops_the_most_negative_code():
    assert [symmetric_limit(bits) for bits in (3, 4, 8)] == [3, 7, 127]
    assert symmetric_max_scale(torch.tensor([-2.0, 1.0]), 3).item() == pytest.approx(4 / 7)
    assert symmetric_max_scale(torch.tensor([2.0, 1.0]), 3).item() == pytest.approx(2 / 7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_data_without_a_range(value):
    for search in (minmax_grid, mse_grid):
        with pytest.raises(BenchError, match="NaN or infinite"):
            search(torch.tensor([1.0, value]), 4, per_channel=False)
        with pytest.raises(BenchError, match="empty"):
            search(torch.zeros(0, 3), 4, per_channel=True)


def test_bit_widths_name_the_allowed_range():
    assert [check_weight_bits(bits) for bits in (2, 8, 16)] == [2, 8, 16]
    assert [check_activation_bits(bits) for bits in (3, 8, 16)] == [3, 8, 16]
    for bits in (1, 9, 15, 17, 32):
        with pytest.raises(BenchError, match=f"weights take 2 to 8 bits, or 16, not {bits}"):
            check_weight_bits(bits)
    for bits in (2, 9, 15, 17, 32):
        with pytest.raises(BenchError, match=f"activations take 3 to 8 bits, or 16, not {bits}"):
            check_activation_bits(bits)
    with pytest.raises(BenchError, match=r"choose one of \['max', 'mse'\]"):
        weight_grid(torch.ones(2, 2), 4, "median")
