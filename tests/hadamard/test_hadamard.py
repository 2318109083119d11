import pytest
import torch
from scipy.linalg import hadamard
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import (
    MAX_ORDER,
    BlockRotation,
    block_rotate,
    divides,
    fold,
    largest_order,
    sylvester,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


def normal(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("order", range(8))
def test_sylvester_is_the_textbook_matrix_and_its_own_inverse(order):
    H = sylvester(order)
    expected = torch.from_numpy(hadamard(2**order)).double() * 2.0 ** (-order / 2)
    assert H.dtype == torch.float64
    torch.testing.assert_close(H, expected, rtol=1e-15, atol=0)
    assert torch.equal(H, H.t())
    torch.testing.assert_close(H @ H, torch.eye(2**order, dtype=torch.float64))


@pytest.mark.parametrize("order", [-1, MAX_ORDER + 1])
def test_sylvester_refuses_other_orders(order):
    with pytest.raises(BenchError, match="choose 0 to"):
        sylvester(order)


@pytest.mark.parametrize("order", [0, 1, 3, 5])
@pytest.mark.parametrize(("shape", "dim"), [((4, 64, 3, 5), 1), ((3, 7, 64), -1), ((6, 64), 1)])
def test_block_rotate_is_the_dense_block_diagonal_product(generator, shape, dim, order):
    x = normal(generator, *shape)
    dense = torch.block_diag(*[sylvester(order)] * (64 // 2**order))
    expected = torch.tensordot(x.movedim(dim, -1), dense, dims=1).movedim(-1, dim)
    rotated = block_rotate(x, order, dim)
    torch.testing.assert_close(rotated, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(block_rotate(rotated, order, dim), x, rtol=0, atol=1e-13)
    torch.testing.assert_close(rotated.norm(), x.norm())


def test_every_axis_of_every_layout(generator):
    """The result depends on the values alone, never on strides."""
    x = normal(generator, 8, 32, 8, 16)
    for dim, order in ((0, 3), (1, 5), (2, 3), (3, 4), (-3, 5)):
        expected = block_rotate(x.clone(), order, dim)
        for other in (
            x.contiguous(memory_format=torch.channels_last),
            x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
            x.transpose(2, 3).contiguous().transpose(2, 3),
        ):
            torch.testing.assert_close(
                block_rotate(other, order, dim), expected, rtol=0, atol=1e-13
            )


def test_channels_last_stays_channels_last(generator):
    x = normal(generator, 2, 32, 4, 4).contiguous(memory_format=torch.channels_last)
    assert block_rotate(x, 5, 1).is_contiguous(memory_format=torch.channels_last)
    assert not block_rotate(x, 5, 1).is_contiguous()


def test_a_shared_mean_moves_into_the_first_coefficient():
    """What H does to a constant block, and why post-SiLU inputs gain an outlier."""
    rotated = block_rotate(torch.ones(1, 32, dtype=torch.float64), 5, 1)
    expected = torch.zeros(1, 32, dtype=torch.float64)
    expected[0, 0] = 32**0.5
    torch.testing.assert_close(rotated, expected)


def test_gradient_is_the_rotation_of_the_cotangent(generator):
    x = normal(generator, 2, 8, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda value: block_rotate(value, 3, 1), x)


def test_matrices_made_under_inference_mode_serve_training(generator):
    with torch.inference_mode():
        block_rotate(torch.ones(2, 128), 7, 1)
    x = torch.ones(2, 128, requires_grad=True)
    block_rotate(x, 7, 1).sum().backward()
    assert x.grad is not None


def test_refuses_an_axis_without_whole_blocks():
    assert divides(96, 5)
    assert not divides(48, 5)
    with pytest.raises(BenchError, match=r"axis 1 of shape \(2, 48, 3\).*blocks of 32"):
        block_rotate(torch.zeros(2, 48, 3), 5, 1)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 8, 3, stride=2, padding=1),
        nn.Conv2d(64, 8, 5, padding=2, dilation=1),
        nn.Conv1d(64, 8, 1),
        nn.Linear(64, 8),
    ],
    ids=["strided", "5x5", "conv1d", "linear"],
)
def test_folding_the_weight_replaces_rotating_the_input(generator, layer):
    layer = layer.double()
    shape = {4: (2, 64, 7, 6), 3: (2, 64, 9), 2: (5, 64)}[layer.weight.dim()]
    x = normal(generator, *shape)
    expected = layer(block_rotate(x, 5, 1))
    with torch.no_grad():
        layer.weight.copy_(fold(layer.weight, 5))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-13)


def test_block_rotation_is_the_function_with_its_arguments(generator):
    x = normal(generator, 3, 16, 4)
    assert torch.equal(BlockRotation(4, 1)(x), block_rotate(x, 4, 1))


def random_signs(generator, channels):
    return 2.0 * torch.randint(2, (channels,), generator=generator).double() - 1


def dense(order, signs):
    """R = D H for all channels."""
    blocks = [sylvester(order)] * (len(signs) // 2**order)
    return torch.diag(signs) @ torch.block_diag(*blocks)


@pytest.mark.parametrize("order", [0, 2, 5])
@pytest.mark.parametrize(("shape", "dim"), [((2, 64, 3, 5), 1), ((3, 7, 64), -1), ((6, 64), 1)])
def test_random_signs_make_an_orthonormal_rotation_with_an_inverse(generator, shape, dim, order):
    signs, x = random_signs(generator, 64), normal(generator, *shape)
    R, rotation = dense(order, signs), BlockRotation(order, dim, signs)
    exact = {"rtol": 0, "atol": 1e-13}
    torch.testing.assert_close(R @ R.t(), torch.eye(64).double(), **exact)
    expected = torch.tensordot(x.movedim(dim, -1), R, dims=1).movedim(-1, dim)
    torch.testing.assert_close(rotation(x), expected, **exact)
    torch.testing.assert_close(rotation.inverse(rotation(x)), x, **exact)
    torch.testing.assert_close(rotation(rotation.inverse(x)), x, **exact)
    if order:  # not its own inverse, unlike the plain matrix
        assert not torch.allclose(rotation(rotation(x)), x)


@pytest.mark.parametrize("signed", [False, True], ids=["sylvester", "random"])
@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(32, 8, 3, stride=stride, padding=padding) for stride in (1, 2) for padding in (0, 1)]
    + [nn.Conv2d(32, 8, 1), nn.Linear(32, 8)],
    ids=["stride1", "stride1-pad1", "stride2", "stride2-pad1", "1x1", "linear"],
)
def test_a_folded_weight_takes_rotated_inputs_to_the_same_output(generator, layer, signed):
    """op(x R, fold(W)) = op(x, W): R is orthonormal and acts on each tap of a kernel alone."""
    layer, signs = layer.double(), random_signs(generator, 32) if signed else None
    image = isinstance(layer, nn.Conv2d)
    x = normal(generator, 2, 32, 7, 6) if image else normal(generator, 2, 5, 32)
    rotation, expected = BlockRotation(4, 1 if image else -1, signs), layer(x)
    back = layer(rotation.inverse(x))
    with torch.no_grad():
        layer.weight.copy_(fold(layer.weight, 4, signs))
    exact = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(layer(rotation(x)), expected, **exact)
    torch.testing.assert_close(layer(x), back, **exact)


def test_random_signs_spread_a_shared_mean(generator):
    """The plain matrix makes one outlier of a constant block; signs leave every entry small."""
    block = torch.full((1, 128), 3.0).double()
    plain = BlockRotation(7, 1)(block)[0]
    torch.testing.assert_close(plain[0], torch.tensor(3 * 128**0.5).double())
    torch.testing.assert_close(plain[1:], torch.zeros(127).double(), rtol=0, atol=1e-13)
    spread = BlockRotation(7, 1, random_signs(generator, 128))(block)[0]
    torch.testing.assert_close(spread.norm(), block.norm())
    assert spread.abs().max() < 0.4 * plain[0]
    assert (spread.abs() > 0.1).sum() > 64


def test_largest_order_that_divides():
    assert [largest_order(width, 5) for width in (8, 4, 6, 5, 96, 64, 1)] == [3, 2, 1, 0, 5, 5, 0]
    assert largest_order(64, 2) == 2
