"""Bit packing, folding, digits and overflow."""

import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import fold
from hqdm_bench.integer import find_fault, pack, unpack
from hqdm_bench.integer.backends import choose_kernel
from hqdm_bench.integer.geometry import Geometry
from hqdm_bench.integer.kernels import (
    ExactFloatKernel,
    ReferenceKernel,
    accumulate,
)
from hqdm_bench.integer.product import split_values
from hqdm_bench.integer.weights import check_overflow, digits, fold_codes


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 64, 1001])
def test_packing_round_trip(bits: int, count: int) -> None:
    codes = torch.randint(2**bits, (count,), generator=torch.Generator().manual_seed(count))
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-count * bits // 8)
    assert torch.equal(unpack(packed, bits, codes.shape).long(), codes)


def test_packed_bits_are_in_order() -> None:
    stream = sum(code << (3 * place) for place, code in enumerate([5, 2, 7, 1, 6]))
    packed = pack(torch.tensor([5, 2, 7, 1, 6]), 3)
    assert packed.tolist() == list(stream.to_bytes(2, "little"))


def test_packing_refuses_what_does_not_fit() -> None:
    with pytest.raises(BenchError, match="do not fit 3 bits"):
        pack(torch.tensor([8]), 3)
    with pytest.raises(BenchError, match="damaged"):
        unpack(torch.zeros(3, dtype=torch.uint8), 3, (9,))


@pytest.mark.parametrize(("channels", "order"), [(64, 5), (36, 2), (128, 7), (33, 0)])
def test_folding_is_the_rotation_without_its_factor(channels: int, order: int) -> None:
    random = torch.Generator().manual_seed(order)
    weight = torch.randint(-15, 16, (6, channels, 3, 2), generator=random)
    signs = torch.randint(2, (channels,), generator=random) * 2.0 - 1
    folded = fold_codes(weight, order, signs if order else None)
    expected = fold(weight.double(), order, signs.double() if order else None) * 2 ** (order / 2)
    assert torch.equal(folded.double(), expected.round())
    assert (expected - expected.round()).abs().max() < 1e-9


def test_digits_only_where_needed() -> None:
    weight = torch.zeros(4, 5, dtype=torch.int16)
    weight[0], weight[1], weight[2] = 127, -128, 128
    weight[3] = torch.tensor([-8160, 8160, 63, 64, -65])
    low, high = digits(weight)
    assert high.rows is not None
    assert high.rows.tolist() == [2, 3]
    whole = low.weight.long()
    whole[high.rows] += high.factor * high.weight.long()
    assert torch.equal(whole, weight.long())
    assert low.weight[2:].min() >= -64
    assert low.weight[2:].max() <= 63
    assert len(digits(weight[:2])) == 1


def test_overflow_is_refused() -> None:
    wide = digits(torch.full((1, 2**17), 127, dtype=torch.int16))
    assert check_overflow(wide, 127, "x") == 2**17 * 127 * 127
    with pytest.raises(BenchError, match=r"layer 'x': .* beyond 32 bits"):
        check_overflow(wide, 255, "x")


@pytest.mark.parametrize("bound", [7, 96, 127, 128, 224, 256, 4064, 16000])
def test_values_split_into_bytes(bound: int) -> None:
    values = torch.arange(-bound, bound + 1).float()
    parts = split_values(values, bound)
    assert len(parts) == (1 if bound <= 127 else 2)
    whole = sum(part.factor * (part.codes.long() - part.zero) for part in parts)
    assert torch.equal(whole, values.long())


def test_the_oracle_is_a_convolution() -> None:
    random = torch.Generator().manual_seed(3)
    codes = torch.randint(256, (2, 5, 9, 8), generator=random)
    weight = torch.randint(-128, 128, (4, 5, 3, 2), generator=random)
    geometry = Geometry("conv2d", (2, 1), (1, 2), (1, 3))
    expected = torch.nn.functional.conv2d(
        codes.double() - 9, weight.double(), None, (2, 1), (1, 2), (1, 3)
    )
    assert torch.equal(accumulate(codes, 9, weight, geometry).double(), expected)


def test_the_self_check_passes_exact_kernels_and_finds_saturation() -> None:
    assert find_fault(ReferenceKernel) is None
    assert find_fault(ExactFloatKernel) is None

    class Saturating(ReferenceKernel):
        """Adds pairs of products in 16 bits, as hardware without VNNI does."""

        def __call__(self, codes, zero, scale, bias):  # type: ignore[no-untyped-def]
            if codes.dim() == 4:
                return super().__call__(codes, zero, scale, bias)
            products = codes.long()[:, None, :] * self._weight.long()[None]
            even = products[..., : products.shape[-1] // 2 * 2].unflatten(-1, (-1, 2)).sum(-1)
            rest = products[..., products.shape[-1] // 2 * 2 :].sum(-1)
            sums = even.clamp(-(2**15), 2**15 - 1).sum(-1) + rest
            return (sums - zero * self._weight.long().sum(1)).float()

    assert "differ" in (find_fault(Saturating) or "")


def test_unknown_backend() -> None:
    with pytest.raises(BenchError, match="choose one of auto, cpu"):
        choose_kernel("gpu")
