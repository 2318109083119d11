"""Faster routines give the bits of the plain product; attention through oneDNN is the same."""

import pytest
import torch

from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.hadamard.matrix import rotation_matrix
from hqdm_bench.integer import blocks
from hqdm_bench.integer.attention import OneDNNRowProduct
from hqdm_bench.integer.blocks import block_routine, multiply_blocks
from hqdm_bench.integer.codes import CodeGrid, encode, signed_codes
from hqdm_bench.models.attention import RowProduct


@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize("count", [1, 3, 64, 255, 256, 300, 5001])
def test_every_bit_is_that_of_the_plain_product(order: int, count: int) -> None:
    random = torch.Generator().manual_seed(count)
    rows = torch.randn(count, 2**order, generator=random) * 3 + 1
    matrix = rotation_matrix(order, torch.float32, torch.device("cpu"))
    found = multiply_blocks(rows, matrix, torch.empty_like(rows), block_routine(order))
    assert torch.equal(found, rows @ matrix)


def test_a_routine_that_rounds_otherwise_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = blocks.multiply_blocks

    def otherwise(rows, matrix, out, routine):  # type: ignore[no-untyped-def]
        if routine == "onednn":
            return (rows.double() @ matrix.double()).float()
        return plain(rows, matrix, out, routine)

    block_routine.cache_clear()
    monkeypatch.setattr(blocks, "multiply_blocks", otherwise)
    try:
        assert block_routine(5) == "pieces"
        monkeypatch.setattr(
            blocks, "multiply_blocks", lambda rows, matrix, out, routine: rows @ matrix + 1e-6
        )
        block_routine.cache_clear()
        assert block_routine(5) == "whole"
    finally:
        block_routine.cache_clear()


@pytest.mark.parametrize("grid", [(-7, 7, 7), (-128, 127, 128), (0, 255, 0), (-200, 55, 200)])
@pytest.mark.parametrize("rows", [5, 4099])  # the second in several pieces
def test_bytes_are_the_codes_plus_the_zero(grid: tuple[int, int, int], rows: int) -> None:
    random = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 96, generator=random) * 40
    low, high, zero = grid
    codes = CodeGrid(0.37, low, high, zero)
    for rotation in (None, BlockRotation(5, -1), BlockRotation(3, -1)):
        expected = signed_codes(x, codes, rotation, None) + zero
        assert torch.equal(encode(x, codes, rotation, None, True).float(), expected)
        assert expected.min() == 0
        assert expected.max() == high - low


@pytest.mark.parametrize("shape", [(2, 3, 160, 130, 128), (1, 1, 8, 8, 16)])
def test_attention_products(shape: tuple[int, ...]) -> None:
    batch, heads, n, m, d = shape
    random = torch.Generator().manual_seed(n)
    a = torch.randn(batch, n, heads, d, generator=random).transpose(1, 2)
    b = torch.randn(batch, m, heads, d, generator=random).transpose(1, 2)
    expected = RowProduct()(a.double(), b.double())
    found = OneDNNRowProduct()(a, b)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert OneDNNRowProduct()(a.double(), b.double()).equal(expected)
