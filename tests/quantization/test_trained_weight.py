"""Float weights behind a quantizer: rounding, sides, LSQ's gradients, what is committed."""

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import (
    AdaRoundWeight,
    MixedWeight,
    StaticWeight,
    TrainedWeight,
    symmetric_weight_grid,
)
from hqdm_bench.quantization.trained_weight import rounding_sides


@pytest.fixture
def weight() -> Tensor:
    random = torch.Generator().manual_seed(3)
    return torch.randn(6, 5, 3, 3, generator=random, dtype=torch.float64)


def test_starts_where_a_static_weight_is(weight: Tensor) -> None:
    for per_channel in (True, False):
        static = StaticWeight.from_float(weight, 4, "mse", per_channel=per_channel)
        trained = TrainedWeight.from_float(weight, 4, "mse", per_channel=per_channel)
        assert torch.equal(trained.effective_codes(), static.codes)
        assert torch.equal(trained(), static())
        assert trained.scale.numel() == (6 if per_channel else 1)
        assert torch.equal(trained.commit()(), static())


def test_gradients_of_lsq(weight: Tensor) -> None:
    """Esser et al., Eq. 3 and 5, per output channel."""
    trained = TrainedWeight.from_float(weight, 4, "mse")
    with torch.no_grad():
        trained.scale.mul_(0.6)  # so that weights are clipped
    cotangent = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)).double()
    (trained() * cotangent).sum().backward()
    scaled = weight / trained.scale.detach()
    codes = scaled.round() + trained.zero
    inside = (codes >= 0) & (codes <= 15)
    assert 20 < inside.sum() < inside.numel() - 20
    limit = codes.clamp(0, 15) - trained.zero
    slope = torch.where(inside, scaled.round() - scaled, limit)
    expected = (slope * cotangent).sum((1, 2, 3)) / (5 * 9 * 15) ** 0.5
    torch.testing.assert_close(trained.scale.grad.flatten(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        trained.weight.grad, torch.where(inside, cotangent, 0.0), rtol=1e-9, atol=1e-12
    )


def test_one_symmetric_step_for_a_whole_weight(weight: Tensor) -> None:
    """LSQ's own grid: Q is 2^(b-1) - 1, N all weights."""
    trained = TrainedWeight.from_float(weight, 4, "max", per_channel=False, symmetric=True)
    assert trained.scale.item() == pytest.approx(float(weight.abs().max()) / 7, rel=1e-12)
    assert torch.equal(trained.zero, torch.full_like(trained.zero, 8))
    trained().square().sum().backward()
    plain = TrainedWeight.from_float(
        weight, 4, "max", per_channel=False, symmetric=True, gradient="plain"
    )
    plain().square().sum().backward()
    factor = (weight.numel() * 7) ** -0.5
    torch.testing.assert_close(trained.scale.grad, plain.scale.grad * factor, rtol=1e-12, atol=0)
    torch.testing.assert_close(trained.commit()(), trained().detach(), rtol=0, atol=0)


def test_symmetric_grids_cover_or_search(weight: Tensor) -> None:
    cover, search = (symmetric_weight_grid(weight, 4, rule) for rule in ("max", "mse"))
    largest = weight.flatten(1).abs().amax(1)
    torch.testing.assert_close(cover.scale.flatten(), largest / 7, rtol=1e-12, atol=0)
    assert cover.scale.shape == (6, 1, 1, 1)
    assert (search.scale < 0.95 * cover.scale).any()

    def error(scale: Tensor) -> Tensor:
        codes = (weight / scale).round().clamp(-8, 7)
        return (weight - codes * scale).abs().pow(2.4).flatten(1).mean(1)

    candidates = [error(cover.scale * (1 - 0.01 * i)) for i in range(80)]
    best = torch.stack(candidates).amin(0)
    torch.testing.assert_close(error(search.scale), best, rtol=1e-6, atol=0)


def test_sides_are_those_of_adaround(weight: Tensor) -> None:
    rounded = AdaRoundWeight.from_float(weight, 3)
    with torch.no_grad():
        rounded.rounding.copy_(
            torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
        )
    static = rounded.commit()
    trained = TrainedWeight.from_static(weight, static)
    assert torch.equal(trained.effective_codes(), static.codes)
    assert not isinstance(trained.scale, nn.Parameter)
    down = rounded.floor + static.zero
    decided = (down >= 0) & (down < 7)  # elsewhere both sides may give the same code
    assert decided.float().mean() > 0.8
    up = (rounded.rounding >= 0).to(torch.uint8)
    assert torch.equal(trained.sides[decided], up[decided])


def test_a_weight_moves_by_whole_codes_and_keeps_its_side(weight: Tensor) -> None:
    static = StaticWeight.from_float(weight, 8, "max")
    trained = TrainedWeight.from_static(weight, static)
    with torch.no_grad():
        trained.weight -= 1.5 * trained.scale
    moved = trained.effective_codes().int() - static.codes.int()
    inside = static.codes >= 2
    assert set(moved[inside].unique().tolist()) == {-2, -1}
    assert torch.equal(trained.commit().codes, trained.effective_codes())


def test_refuses_codes_of_another_weight(weight: Tensor) -> None:
    static = StaticWeight.from_float(weight, 4)
    with pytest.raises(BenchError, match="not those of this weight"):
        rounding_sides(weight + 3 * static.scale, static)
    with pytest.raises(BenchError, match="shape"):
        rounding_sides(weight[:3], static)


def test_channels_keep_bits_of_their_own(weight: Tensor) -> None:
    weight[0] *= torch.linspace(0.1, 4, 45, dtype=torch.float64).view(5, 3, 3)
    static = MixedWeight.from_float(weight, 4, "mse")
    for trained in (
        TrainedWeight.from_grid(weight, static),
        TrainedWeight.from_static(weight, static),
    ):
        assert torch.equal(trained(), static())
        with torch.no_grad():
            trained.weight.mul_(3)  # to both ends of every grid
        highest = trained.effective_codes().flatten(1).amax(1)
        assert torch.equal(highest.long(), 2 ** static.channel_bits.long() - 1)
        committed = trained.commit()
        assert isinstance(committed, MixedWeight)
        assert torch.equal(committed(), trained())
