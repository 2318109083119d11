"""Faster routines give the bits of the plain product; attention through oneDNN is the same."""

import pytest
import torch

from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.hadamard.matrix import rotation_matrix
from hqdm_bench.integer import blocks
from hqdm_bench.integer.attention import (
    OneDNNQKVAttention,
    OneDNNTokenAttention,
    faster_attention,
    plain_attention,
)
from hqdm_bench.integer.blocks import block_routine, multiply_blocks
from hqdm_bench.integer.codes import CodeGrid, encode, signed_codes
from hqdm_bench.integer.pointwise import PointwiseConvolution
from hqdm_bench.models.attention import QKVAttention, TokenAttention


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
def test_attention_over_tokens(shape: tuple[int, ...]) -> None:
    batch, heads, n, m, d = shape
    random = torch.Generator().manual_seed(n)
    query, key, value = (
        torch.randn(batch, count, heads, d, generator=random).transpose(1, 2) for count in (n, m, m)
    )
    plain = TokenAttention(d**-0.5)
    fast = faster_attention(plain)
    assert isinstance(fast, OneDNNTokenAttention)
    expected = plain(query.double(), key.double(), value.double())
    found = fast(query, key, value)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert fast(query.double(), key.double(), value.double()).equal(expected)
    assert type(plain_attention(fast)) is TokenAttention


@pytest.mark.parametrize(("heads", "width", "tokens"), [(4, 32, 300), (2, 8, 9)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_attention_over_pixels(heads: int, width: int, tokens: int, channels_last: bool) -> None:
    random = torch.Generator().manual_seed(tokens)
    qkv = torch.randn(2, tokens, 3 * heads * width, generator=random).transpose(1, 2)
    if not channels_last:
        qkv = qkv.contiguous()
    plain = QKVAttention(heads)
    fast = faster_attention(plain)
    assert isinstance(fast, OneDNNQKVAttention)
    expected = plain(qkv.double())
    found = fast(qkv)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert type(plain_attention(fast)) is QKVAttention
    assert faster_attention(torch.nn.Identity()) is None
    assert plain_attention(torch.nn.Identity()) is None


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_convolutions(stride: int) -> None:
    random = torch.Generator().manual_seed(stride)
    for kind, shape in (
        (torch.nn.Conv1d, (3, 24, 10)),
        (torch.nn.Conv1d, (3, 24, 90)),
        (torch.nn.Conv2d, (3, 24, 6, 7)),
    ):
        layer = kind(24, 17, 1, stride)
        assert PointwiseConvolution.fits(layer)
        fast = PointwiseConvolution(layer)
        x = torch.randn(*shape, generator=random)
        expected = layer.double()(x.double())
        layer.float()
        for image in (x, x.movedim(1, -1).contiguous().movedim(-1, 1)):
            found = fast(image)
            assert found.shape == expected.shape
            assert (found - expected).abs().max() < 1e-5
        assert torch.equal(fast.plain()(x), layer(x))
        assert not PointwiseConvolution.fits(kind(24, 17, 1, padding=1))
        assert not PointwiseConvolution.fits(kind(24, 17, 3))
