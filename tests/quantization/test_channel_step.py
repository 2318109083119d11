"""A step size for every input channel."""

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import ChannelStep, LearnedStep, MinMaxObserver, MseObserver
from hqdm_bench.quantization.observers import observer_for

SPREAD = torch.tensor([0.01, 1.0, 100.0])


@pytest.fixture
def x() -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 4, 4, generator=random) * SPREAD.view(3, 1, 1)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("make", [MseObserver, MinMaxObserver])
def test_each_channel_is_quantized_by_itself(x: Tensor, symmetric: bool, make: type) -> None:
    quantizer = ChannelStep(4, 2, 3, linear=False, symmetric=symmetric)
    assert not quantizer.calibrated
    observer = observer_for(quantizer, make)
    for half in x.split(1):
        observer.observe(quantizer.by_channel(half))
    observer.store(quantizer, 1)
    assert not quantizer.calibrated
    observer.store(quantizer, 0)
    assert quantizer.calibrated
    for channel in range(3):
        single = LearnedStep(4, symmetric=symmetric)
        alone = make()
        for half in x.split(1):
            alone.observe(half[:, channel])
        alone.store(single)
        expected = single(x[:, channel], 0)
        torch.testing.assert_close(quantizer(x, 1)[:, channel], expected, rtol=1e-5, atol=1e-7)


def test_tokens_have_their_channels_last(x: Tensor) -> None:
    tokens = x.flatten(2).transpose(1, 2)
    of_images, of_tokens = (ChannelStep(4, 1, 3, linear=linear) for linear in (False, True))
    of_images.calibrate(x)
    of_tokens.calibrate(tokens)
    assert torch.equal(of_images.scale, of_tokens.scale)
    expected = of_images(x, 0).flatten(2).transpose(1, 2)
    assert torch.equal(of_tokens(tokens, 5), expected)  # one row serves every step


def test_gradients_stay_in_their_channel_and_row(x: Tensor) -> None:
    quantizer = ChannelStep(4, 2, 3, linear=False)
    quantizer.calibrate(x)
    quantizer(x, 1)[:, 2].square().sum().backward()
    touched = quantizer.scale.grad.abs() > 0
    assert touched.tolist() == [[False] * 3, [False, False, True]]


def test_refusals(x: Tensor) -> None:
    quantizer = ChannelStep(4, 1, 5, linear=False)
    with pytest.raises(BenchError, match="calibrate the student"):
        quantizer(torch.zeros(1, 5, 2, 2), 0)
    with pytest.raises(BenchError, match="5 channels"):
        quantizer.calibrate(x)
    observer = observer_for(ChannelStep(4, 1, 3, linear=True), MinMaxObserver)
    with pytest.raises(BenchError, match="NaN"):
        observer.observe(torch.full((4, 3), torch.nan))


def test_the_layers_state_has_the_tables() -> None:
    assert isinstance(ChannelStep(4, 2, 3, linear=True).scale, nn.Parameter)
    shapes = {
        key: value.shape for key, value in ChannelStep(4, 2, 3, linear=True).state_dict().items()
    }
    assert shapes == {"scale": (2, 3), "zero": (2, 3)}
