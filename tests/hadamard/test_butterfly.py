"""The transform by sums and differences."""

import pytest
import torch

from hqdm_bench.hadamard import BlockRotation, block_rotate, butterfly, sylvester


@pytest.mark.parametrize("order", range(9))
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_it_is_the_product_with_the_matrix(order: int, dim: int) -> None:
    size = 2**order
    shape = [3, 2, 5]
    shape[dim] = 2 * size
    x = torch.randn(shape, generator=torch.Generator().manual_seed(order), dtype=torch.float64)
    expected = block_rotate(x, order, dim)
    found = block_rotate(x, order, dim, "butterfly")
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    blocks = x.movedim(dim, -1).reshape(-1, size) @ sylvester(order)
    assert torch.allclose(found.movedim(dim, -1).reshape(-1, size), blocks, rtol=1e-12, atol=1e-12)


def test_the_order_of_the_sums_is_the_documented_one() -> None:
    """In float32, entry by entry, with Python's arithmetic on float32 numbers."""
    x = torch.randn(7, 8, 1, generator=torch.Generator().manual_seed(1)) * 1e3
    values = [[row[j, 0].clone() for j in range(8)] for row in x]
    for row in values:
        for stage in range(3):
            for j in range(8):
                if not j >> stage & 1:
                    other = j + 2**stage
                    row[j], row[other] = row[j] + row[other], row[j] - row[other]
    factor = torch.tensor(2.0**-1.5)
    expected = torch.stack([torch.stack(row) for row in values]) * factor
    assert torch.equal(butterfly(x, 3)[..., 0], expected)


def test_layouts_share_their_numbers_and_the_rotation_is_undone() -> None:
    random = torch.Generator().manual_seed(2)
    x = torch.randn(2, 64, 5, 3, generator=random)
    signs = torch.randint(2, (64,), generator=random) * 2.0 - 1
    rotation = BlockRotation(5, 1, signs, "butterfly")
    last = rotation(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(rotation(x), last)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(rotation.inverse(last), x, atol=1e-5)
