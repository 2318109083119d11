"""Ranges, centres and the choice of rotation, measured on calls of any module."""

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.distill.observe import SAMPLE
from hqdm_bench.methods import Student, quantize
from hqdm_bench.quantization import (
    EmaObserver,
    LearnedStep,
    QuantizedLayer,
    mse_grid,
    symmetric_mse_scale,
)

TIMES = (1, 501)


class Net(nn.Module):
    """An image layer and a token layer, side by side, that do not see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(32, 8, 3, padding=1)
        self.tokens = nn.Linear(32, 8)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.1 * normal(*parameter.shape))

    def forward(self, x: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        return self.image(x).mean((2, 3)) + self.tokens(tokens).mean(1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make(method: str = "hqdm_plus", **options: str) -> Student:
    return quantize(Net(), method, "w4a4", timesteps=TIMES, policy="full", **options)


def calls_of(image: Tensor, tokens: Tensor | None = None) -> list[tuple[Tensor, int, Tensor]]:
    """Two calls a timestep; the second one's inputs are larger."""
    tokens = normal(len(image), 5, 32, seed=1) if tokens is None else tokens
    return [(image * size, t, tokens * size) for t in TIMES for size in (1.0, 1.5)]


def layer(student: Student, name: str) -> QuantizedLayer:
    return student.quantized_layers()[name]


def both(calls: list[tuple[Tensor, int, Tensor]], t: int, argument: int) -> Tensor:
    return torch.cat([call[argument] for call in calls if call[1] == t])


def test_a_centre_is_the_mean_of_each_channel_at_each_step() -> None:
    student, calls = make(), calls_of(normal(4, 32, 6, 6) + torch.arange(32.0).view(32, 1, 1))
    calls = [(x * t, t, tokens + t) for x, t, tokens in calls]
    calibrate_on_calls(student, calls)
    for row, t in enumerate(TIMES):
        image, tokens = both(calls, t, 0), both(calls, t, 2)
        torch.testing.assert_close(layer(student, "image").centre[row], image.mean((0, 2, 3)))
        torch.testing.assert_close(layer(student, "tokens").centre[row], tokens.mean((0, 1)))


def test_without_a_centre_there_is_none() -> None:
    student = make(centre="none")
    calibrate_on_calls(student, calls_of(normal(4, 32, 6, 6)))
    assert all(one.centre is None for one in student.quantized_layers().values())


@pytest.mark.parametrize("options", [{}, {"activation": "asymmetric"}, {"scope": "every_linear"}])
def test_a_row_is_the_search_over_all_inputs_of_its_step(options: dict[str, str]) -> None:
    student, calls = make("hqdm", **options), calls_of(normal(2, 32, 4, 4))
    calls = [(x * (1 + t / 500), t, tokens) for x, t, tokens in calls]
    calibrate_on_calls(student, calls)
    for name, argument in (("image", 0), ("tokens", 2)):
        for row, t in enumerate(TIMES):
            x = both(calls, t, argument)
            assert x.numel() <= SAMPLE
            seen, table = layer(student, name).quantizer_input(x), layer(student, name).activation
            if table.zero is None:
                expected = symmetric_mse_scale(seen, 4)
            else:
                expected = mse_grid(seen, 4, per_channel=False).scale
                assert table.zero[row] == mse_grid(seen, 4, per_channel=False).zero
            torch.testing.assert_close(table.scale[row].detach(), expected)


def test_an_outlier_channel_is_rotated_and_a_shared_mean_is_not() -> None:
    """Hadamard spreads one huge channel; it makes an outlier of a mean that all channels share."""
    outlier = normal(4, 32, 6, 6)
    outlier[:, 5] *= 40
    shared = normal(4, 5, 32).mul(0.3).add(4).abs()
    student = make(centre="none")
    calibrate_on_calls(student, calls_of(outlier, shared))
    assert layer(student, "image").rotates(outlier)
    assert not layer(student, "tokens").rotates(shared)
    # The other way round, and again on the same student: the choice is made anew.
    outlier, shared = shared.new_full((4, 32, 6, 6), 4) + 0.3 * normal(4, 32, 6, 6), shared.clone()
    shared[..., 5] *= 40
    calibrate_on_calls(student, calls_of(outlier, shared))
    assert not layer(student, "image").rotates(outlier)
    assert layer(student, "tokens").rotates(shared)


def test_the_choice_is_the_smaller_error_of_the_grid() -> None:
    for seed in range(4):
        image = normal(4, 32, 6, 6, seed=seed)
        image[:, 3] *= 1 + 2 * seed
        calls = calls_of(image)
        errors = {}
        student = make(centre="none")
        calibrate_on_calls(student, calls)
        chosen = layer(student, "image")
        every = make(centre="none", scope="every_linear")
        none = make("efficientdm")
        for name, other in (("rotated", every), ("plain", none)):
            calibrate_on_calls(other, calls)
            one = layer(other, "image")
            errors[name] = 0.0
            for row, t in enumerate(TIMES):
                x = both(calls, t, 0)
                x_hat = one.activation(x, row, one.rotation_of(x))
                errors[name] += (x_hat - x).square().mean().item()
        rotates = errors["rotated"] <= errors["plain"]
        assert chosen.rotates(image) == rotates
        table = layer(every if rotates else none, "image").activation.scale
        assert torch.equal(chosen.activation.scale, table)


def test_calls_by_name_and_by_position_are_the_same() -> None:
    one, two, calls = make(), make(), calls_of(normal(2, 32, 4, 4))
    calibrate_on_calls(one, calls)
    names = ("x", "timesteps", "tokens")
    calibrate_on_calls(two, [dict(zip(names, call, strict=True)) for call in calls])
    for key, value in one.state_dict().items():
        assert torch.equal(two.state_dict()[key], value), key


def test_only_ranges_and_measurements_change() -> None:
    student = make()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    calibrate_on_calls(student, calls_of(normal(2, 32, 4, 4)))
    measured = ("activation.scale", "activation.zero", "centre", "rotates_input")
    for key, value in student.state_dict().items():
        assert key.endswith(measured) or torch.equal(value, before[key]), key
    assert all(value.grad is None for value in student.parameters())


@pytest.mark.parametrize("method", ["hqdm", "hqdm_plus"])
def test_calls_of_a_timestep_that_are_apart_are_refused(method: str) -> None:
    calls = calls_of(normal(2, 32, 4, 4))
    with pytest.raises(BenchError, match="calls of one timestep are apart; group them by timestep"):
        calibrate_on_calls(make(method), [*calls, calls[0]])


@pytest.mark.parametrize("method", ["hqdm", "hqdm_plus"])
def test_a_timestep_without_a_call_is_named(method: str) -> None:
    calls = [call for call in calls_of(normal(2, 32, 4, 4)) if call[1] == 1]
    with pytest.raises(BenchError, match="no call ran 'image' at timestep 501; add calls there"):
        calibrate_on_calls(make(method), calls)


def test_quantizers_are_put_back_after_an_error() -> None:
    student, calls = make(), calls_of(normal(2, 32, 4, 4))
    kinds = [type(one.activation) for one in student.quantized_layers().values()]
    with pytest.raises(BenchError):
        calibrate_on_calls(student, [*calls, calls[0]])
    assert [type(one.activation) for one in student.quantized_layers().values()] == kinds
    assert not any(one._forward_pre_hooks for one in student.quantized_layers().values())
    calibrate_on_calls(student, calls)
    assert student.calibrated


def test_ranges_of_before_do_not_hide_a_missing_timestep() -> None:
    student = quantize(nn.Sequential(nn.Linear(8, 8)), policy="full")
    calibrate_on_calls(student, [(torch.randn(4, 8),)])
    with pytest.raises(BenchError, match="no call ran '0'"):
        calibrate_on_calls(student, [])


def test_another_observer_takes_the_place_of_the_search() -> None:
    student, calls = make("efficientdm"), calls_of(normal(4, 32, 6, 6))
    calibrate_on_calls(student, calls, observer=lambda: EmaObserver(0.5))
    for row, t in enumerate(TIMES):
        first, second = (call[0] for call in calls if call[1] == t)
        low, high = (first.min() + second.min()) / 2, (first.max() + second.max()) / 2
        scale = layer(student, "image").activation.scale[row].detach()
        torch.testing.assert_close(scale, (high - low) / 15)


def test_a_step_for_all_timesteps_is_searched_over_all_calls() -> None:
    student, calls = make("efficientdm"), calls_of(normal(2, 32, 4, 4))
    image = layer(student, "image")
    for one in student.quantized_layers().values():
        one.activation = LearnedStep(4)
    calibrate_on_calls(student, [*calls, calls[0]])  # apart, which one range does not mind
    every = torch.cat([call[0].flatten() for call in [*calls, calls[0]]])
    assert image.activation.scale.item() == mse_grid(every, 4, per_channel=False).scale
