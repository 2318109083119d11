"""Weights with bits of their own for each channel, against MPQ-DM's released layer and by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import (
    AdaRoundWeight,
    AffineStatic,
    MixedWeight,
    QuantizedLayer,
    StaticWeight,
    StepIndex,
    channel_bits,
    kurtosis,
    weight_grid,
)
from hqdm_bench.quantization.sizes import table_bytes

# "made_by" in the file says how.
RELEASED = Path(__file__).parents[1] / "data" / "oracle" / "outliers.json"


@pytest.fixture(scope="module")
def released() -> dict[str, Any]:
    return json.loads(RELEASED.read_text())["mpq_dm"]


def heavy(*shape: int, seed: int = 0) -> Tensor:
    """Channels 2 and 7 have a few large values, 4 and 5 hardly any tails."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=random, dtype=torch.float64)
    for channel in (2, 7):
        weight[channel].view(-1)[channel] = 9.0
    for channel in (4, 5):
        weight[channel] = 0.1 * weight[channel].sign()
    return weight


def test_kurtosis_by_hand() -> None:
    # Two of +-1: fourth moment 1, unbiased variance 4/3. One of four at 1: moments by hand.
    weight = torch.tensor([[1.0, -1, 1, -1], [1, 0, 0, 0], [2, 2, 2, 2]], dtype=torch.float64)
    second = (0.75**4 + 3 * 0.25**4) / 4 / ((0.75**2 + 3 * 0.25**2) / 3) ** 2
    expected = torch.tensor([9 / 16, second, 0.0], dtype=torch.float64)
    torch.testing.assert_close(kurtosis(weight), expected)
    torch.testing.assert_close(kurtosis(weight.view(3, 2, 2)), expected)
    assert kurtosis(torch.ones(3, 1)).tolist() == [0, 0, 0]


def test_kurtosis_and_bits_are_the_released_ones(released: dict[str, Any]) -> None:
    weight = torch.tensor(released["weight"], dtype=torch.float64)
    expected = torch.tensor(released["kurtosis"], dtype=torch.float64)
    torch.testing.assert_close(kurtosis(weight), expected, rtol=1e-10, atol=0)
    widths = channel_bits(weight, 4, "max")
    assert (widths == 5).nonzero().flatten().tolist() == released["more"]
    assert (widths == 3).nonzero().flatten().tolist() == released["less"]


def test_the_weight_is_the_released_one(released: dict[str, Any]) -> None:
    weight = torch.tensor(released["weight"], dtype=torch.float64)
    expected = torch.tensor(released["quantized"], dtype=torch.float64)
    found = MixedWeight.from_float(weight, 4, "max")()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("rule", ["max", "mse"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 6, 3, 3)])
def test_a_channel_is_rounded_on_the_grid_of_its_bits(shape: tuple[int, ...], rule: Any) -> None:
    weight = heavy(*shape)
    mixed = MixedWeight.from_float(weight, 4, rule)
    assert mixed.channel_bits.dtype == torch.uint8
    assert mixed.codes.dtype == torch.uint8
    assert (mixed.bits, mixed.code_bits) == (4, 5)
    assert mixed.channel_bits.double().mean() == 4
    assert set(mixed.channel_bits.tolist()) == {3, 4, 5}
    assert (mixed.channel_bits == 5).nonzero().flatten().tolist() == [2, 7]
    assert (mixed.channel_bits == 3).nonzero().flatten().tolist() == [4, 5]
    for channel, bits in enumerate(mixed.channel_bits.tolist()):
        row = weight[channel : channel + 1]
        alone = StaticWeight.from_float(row, bits, rule)
        assert torch.equal(mixed.codes[channel], alone.codes[0])
        torch.testing.assert_close(mixed()[channel], alone()[0], rtol=1e-12, atol=0)
        assert int(mixed.levels.flatten()[channel]) == 2**bits - 1


def test_it_is_done_only_where_it_lowers_the_error() -> None:
    weight = heavy(20, 30)
    plain = StaticWeight.from_float(weight, 4)
    mixed = MixedWeight.from_float(weight, 4)
    assert (mixed() - weight).square().sum() < (plain() - weight).square().sum()
    # All channels alike but for their order: a bit less costs more than a bit more gains.
    alike = torch.stack([weight[0].roll(turn) for turn in range(20)])
    assert channel_bits(alike, 4).tolist() == [4] * 20
    assert torch.equal(
        MixedWeight.from_float(alike, 4).codes, StaticWeight.from_float(alike, 4).codes
    )
    assert channel_bits(weight[:9], 4).tolist() == [4] * 9  # less than ten have no tenth


def test_what_cannot_be_mixed() -> None:
    for bits in (2, 8):
        with pytest.raises(BenchError, match=f"{bits} bits cannot be mixed; 3 to 7 can"):
            channel_bits(heavy(20, 30), bits)
    widths = channel_bits(heavy(20, 30), 7)
    assert widths.max() == 8
    assert channel_bits(heavy(20, 30), 3).min() == 2
    with pytest.raises(BenchError, match="need grids of their own"):
        MixedWeight.from_float(heavy(20, 30), 4, per_channel=False)


def test_another_weight_keeps_the_bits() -> None:
    weight = heavy(20, 30)
    mixed = MixedWeight.from_float(weight, 4)
    widths = mixed.channel_bits.clone()
    other = weight * torch.linspace(0.5, 2, 30, dtype=torch.float64)
    mixed.requantize(other, "mse")
    assert torch.equal(mixed.channel_bits, widths)
    for channel, bits in enumerate(widths.tolist()):
        grid = weight_grid(other[channel : channel + 1], bits, "mse")
        torch.testing.assert_close(mixed.scale[channel], grid.scale[0])
        codes = ((other[channel] / grid.scale[0]).round() + grid.zero[0]).clamp(0, 2**bits - 1)
        assert torch.equal(mixed.codes[channel].double(), codes)


def test_learned_rounding_stays_within_the_bits() -> None:
    weight = heavy(20, 30)
    mixed = MixedWeight.from_float(weight, 4)
    soft = AdaRoundWeight.from_static(weight, mixed)
    untrained = soft.commit()
    assert isinstance(untrained, MixedWeight)
    assert torch.equal(untrained.codes, mixed.codes)
    assert torch.equal(untrained.channel_bits, mixed.channel_bits)
    with torch.no_grad():
        soft.rounding.fill_(9.0)  # everything up
    up = soft.commit()
    highest = 2 ** mixed.channel_bits.long() - 1
    assert (up.codes.flatten(1).amax(1) == highest).all()  # clipped, each at its own
    torch.testing.assert_close(soft(), up())
    with torch.no_grad():
        soft.rounding.fill_(-9.0)
    assert torch.equal(soft(), soft.commit()())
    soft().sum().backward()
    assert soft.rounding.grad is not None


def test_its_bytes() -> None:
    """The mean is kept, so only the list of bits comes on top."""
    source = nn.Linear(30, 20)
    layers = [
        QuantizedLayer(source, kind.from_float(heavy(20, 30), 4), AffineStatic(8), StepIndex([1]))
        for kind in (StaticWeight, MixedWeight)
    ]
    plain, mixed = layers
    assert table_bytes(mixed) - table_bytes(plain) == 20
    assert mixed.weight.bits == 4
