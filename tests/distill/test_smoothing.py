"""What calibration makes of a SmoothQuant student's scales and shifts."""

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.distill.post_training import post_train
from hqdm_bench.methods import Student, quantize

TIMES = (1, 501)
Calls = list[tuple[Tensor, int]]


class Net(nn.Module):
    """Two layers of the same input."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.pixels = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(8, 6, 1)
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))

    def forward(self, x: Tensor, t: int) -> Tensor:
        return self.image(x) + self.pixels(x)


@pytest.fixture
def calls() -> Calls:
    """Channels around means of their own, wider at the second step."""
    random = torch.Generator().manual_seed(2)
    mean = torch.linspace(-3, 6, 8).view(8, 1, 1)
    return [(mean + torch.randn(4, 8, 5, 5, generator=random) * (1 + t / 500), t) for t in TIMES]


def student(calls: Calls, bits: str = "w8a4", **options: object) -> Student:
    made = quantize(Net(), "smoothquant", bits, timesteps=TIMES, policy="full", **options)
    calibrate_on_calls(made, calls)
    return made


def error(made: Student, calls: Calls) -> float:
    net = Net()
    with torch.no_grad():
        return sum(float((made(*call) - net(*call)).square().mean()) for call in calls)


@pytest.mark.parametrize("alpha", [25, 75])
def test_scales_are_the_formula_over_all_calls(calls: Calls, alpha: int) -> None:
    x = torch.cat([call[0] for call in calls])
    net = Net()
    for name, layer in student(calls, alpha=alpha).quantized_layers().items():
        largest = net.get_submodule(name).weight.abs().amax((0, 2, 3))
        expected = x.abs().amax((0, 2, 3)) ** (alpha / 100) / largest ** (1 - alpha / 100)
        torch.testing.assert_close(layer.scaling.tau, expected.detach())
        assert layer.scaling.shift is None


def test_the_shift_is_the_middle_and_the_scales_are_of_what_is_left(calls: Calls) -> None:
    x = torch.cat([call[0] for call in calls])
    low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
    net = Net()
    for name, layer in student(calls, shift="channel").quantized_layers().items():
        weight = net.get_submodule(name).weight.detach()
        torch.testing.assert_close(layer.scaling.shift, (low + high) / 2)
        expected = ((high - low) / 2 / weight.abs().amax((0, 2, 3))).sqrt()
        torch.testing.assert_close(layer.scaling.tau, expected)
        taps = (weight * layer.scaling.shift.view(1, -1, 1, 1)).sum(1, keepdim=True)
        torch.testing.assert_close(layer.scaling.taps, taps)


def test_a_shift_lowers_the_error_where_channels_have_means(calls: Calls) -> None:
    assert error(student(calls, shift="channel"), calls) < 0.5 * error(student(calls), calls)


def test_outlier_suppression_plus_shifts_and_scales_to_a_threshold(calls: Calls) -> None:
    x = torch.cat([call[0] for call in calls])
    low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
    net = Net()
    made = quantize(
        net,
        "smoothquant",
        "w8a4",
        timesteps=TIMES,
        policy="full",
        preset="outlier_suppression_plus",
    )
    post_train(made, net, calls)
    for layer in made.quantized_layers().values():
        torch.testing.assert_close(layer.scaling.shift, (low + high) / 2)
        width = (high - low) / 2
        reached = width / layer.scaling.tau
        scaled = layer.scaling.tau > 1
        torch.testing.assert_close(
            reached[scaled], reached[scaled].mean().expand(int(scaled.sum()))
        )
        assert (width[~scaled] <= reached.max() * 1.001).all()
    assert error(made, calls) < 0.5 * error(student(calls), calls)


@pytest.mark.parametrize("shift", ["none", "channel"])
def test_calibration_repeats_itself(calls: Calls, shift: str) -> None:
    one, again = student(calls, shift=shift), student(calls, shift=shift)
    calibrate_on_calls(again, [(x * 3 + 1, t) for x, t in calls])
    calibrate_on_calls(again, calls)
    for key, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_halves_of_repeated_channels_stay_apart(calls: Calls) -> None:
    """Scales of 1 are no other weight, and splitting outliers does not cost what it saves."""
    made = quantize(Net(), "smoothquant", "w4a8", timesteps=TIMES, policy="full", outlier_split=10)
    for layer in made.quantized_layers().values():
        before = layer.weight.codes.clone()
        layer.rescale(torch.ones_like(layer.scaling.tau))
        assert torch.equal(layer.weight.codes, before)
    split = student(calls, "w4a8", outlier_split=10)
    assert error(split, calls) < error(student(calls, "w4a8"), calls)


def test_a_share_without_a_formula_is_refused() -> None:
    options = {"preset": "outlier_suppression_plus", "alpha": 75}
    with pytest.raises(BenchError, match="alpha 75 is of the formula"):
        quantize(Net(), "smoothquant", "w4a8", timesteps=TIMES, policy="full", **options)
