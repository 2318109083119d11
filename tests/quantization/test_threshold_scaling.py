"""Scales down to a threshold, against plain formulas."""

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import dynamic_fake_quantize, search_threshold, threshold_scale

BITS = (8, 4)


@pytest.fixture
def example() -> tuple[nn.Linear, Tensor]:
    """One channel is an outlier."""
    random = torch.Generator().manual_seed(1)
    layer = nn.Linear(6, 5).double().requires_grad_(False)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=random))
    x = torch.randn(50, 6, generator=random, dtype=torch.float64)
    return layer, x * torch.tensor([1, 1, 15, 1, 0.5, 2])


def error(layer: nn.Linear, x: Tensor, tau: Tensor) -> float:
    x_hat = dynamic_fake_quantize(x / tau, BITS[1], per_channel=False)
    w_hat = dynamic_fake_quantize(layer.weight * tau, BITS[0], per_channel=True)
    return float((x_hat @ w_hat.t() + layer.bias - layer(x)).square().sum())


def test_channels_above_the_threshold_come_down_to_it() -> None:
    tau = threshold_scale(torch.tensor([0.5, 2.0, 8.0]), 2.0)
    assert tau.tolist() == [1, 1, 4]


def test_the_threshold_is_the_best_of_all(example: tuple[nn.Linear, Tensor]) -> None:
    layer, x = example
    largest = x.abs().amax(0)
    errors = {}
    for index in range(100):
        tau = (largest / (largest.max() * (1 - index / 100))).clamp(min=1)
        errors[error(layer, x, tau)] = tau
    found = search_threshold(layer, x, largest, BITS, batch=50)
    torch.testing.assert_close(found, errors[min(errors)], rtol=1e-12, atol=0)
    assert found[2] > 2
    assert error(layer, x, found) < 0.2 * error(layer, x, torch.ones_like(largest))


def test_batches_add_up_and_a_layer_without_input_stays(example: tuple[nn.Linear, Tensor]) -> None:
    layer, x = example
    zeros = torch.zeros(40, 6)
    assert search_threshold(layer, zeros, zeros[0], BITS).tolist() == [1] * 6
    same = torch.cat([x, x, x])
    found = [search_threshold(layer, part, x.abs().amax(0), BITS, batch=50) for part in (x, same)]
    assert torch.equal(*found)
    with pytest.raises(BenchError, match="no inputs"):
        search_threshold(layer, x[:0], x.abs().amax(0), BITS)
