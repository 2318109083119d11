"""Reconstruction on toys: losses, schedules, what is captured, and that errors fall."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import (
    calibrate_on_calls,
    exact_activations,
    reconstruct_steps,
    reconstruct_weights,
)
from hqdm_bench.distill.capture import capture
from hqdm_bench.distill.fitting import reconstruction_loss
from hqdm_bench.methods import RoundingFit, StepFit, Student, quantize
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import AdaRoundWeight, StaticWeight

TIMES = (1, 501)
Calls = list[tuple[Tensor, int]]


class Block(nn.Module):
    """A residual block by its parts' names, that takes a second argument."""

    def __init__(self) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.Linear(12, 12), nn.SiLU())
        self.out_layers = nn.Linear(12, 12)

    def forward(self, x: Tensor, size: Tensor, *, gain: float = 1.0) -> Tensor:
        return x + self.out_layers(self.in_layers(x) * size) * gain


class Net(nn.Module):
    """A layer, a block, a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Linear(8, 12), Block(), nn.Linear(12, 3)
        random = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=random))

    def forward(self, x: Tensor, t: int) -> Tensor:
        size = x.new_full((len(x), 1), 1 + t / 1000)
        return self.last(self.block(torch.tanh(self.first(x)), size, gain=0.5))


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def calls() -> Calls:
    random = torch.Generator().manual_seed(4)
    mix = torch.randn(8, 8, generator=random)  # correlated inputs are what rounding can use
    return [(torch.randn(64, 3, generator=random) @ mix[:3] * (1 + t / 500), t) for t in TIMES]


def student_of(net: Net, bits: str = "w3a4", policy: str = "full", **options: str) -> Student:
    return quantize(net, "rtn", bits, timesteps=TIMES, policy=policy, **options)


QUICK = RoundingFit(updates=800, rate=1e-2, penalty=1e-2)


def error(student: Student, net: Net, calls: Calls) -> float:
    with torch.no_grad():
        return sum(float((student(*call) - net(*call)).square().mean()) for call in calls)


def test_the_loss_sums_over_the_second_axis() -> None:
    output, target = torch.tensor([[1.0, 2.0], [0.0, -2.0]]), torch.zeros(2, 2)
    assert reconstruction_loss(output, target).item() == pytest.approx((5 + 4) / 2)
    powers = 1 + 2 * 2**2.4
    assert reconstruction_loss(output, target, 2.4).item() == pytest.approx(powers / 2)
    image = torch.ones(2, 5, 3, 3)
    assert reconstruction_loss(image, torch.zeros_like(image)).item() == 5


def test_the_defaults_are_q_diffusions() -> None:
    weights, steps = RoundingFit(), StepFit()
    assert (weights.updates, weights.batch, weights.rate) == (20_000, 32, 1e-3)
    assert (weights.penalty, weights.first_beta, weights.last_beta) == (0.01, 20, 2)
    assert (weights.warm_up, weights.exponent, weights.decay) == (0.2, 2.0, "none")
    assert (steps.updates, steps.batch, steps.rate) == (5000, 32, 4e-4)
    assert (steps.exponent, steps.decay) == (2.4, "cosine")
    assert weights.beta.at(3999) is None
    assert weights.beta.at(12_000) == 11
    assert weights.factor(17) == 1
    assert steps.factor(1) == 1
    assert steps.factor(2501) == pytest.approx(0.5)
    assert steps.factor(5001) == pytest.approx(0, abs=1e-12)
    assert steps.factor(1251) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_capture_takes_inputs_from_the_student_and_targets_from_the_teacher(
    net: Net, calls: Calls
) -> None:
    student = student_of(net)
    with exact_activations(student), torch.no_grad():
        data = capture(student, net, "block", calls, seed=0)
        inputs = torch.cat([torch.tanh(student.network.first(x)) for x, _ in calls])
    exact = torch.cat([torch.tanh(net.first(x)) for x, _ in calls]).detach()
    assert torch.equal(data.arguments[0], inputs)
    assert not torch.allclose(data.arguments[0], exact)
    size = torch.tensor([1 + t / 1000 for t in TIMES]).repeat_interleave(64)[:, None]
    assert torch.equal(data.arguments[1], size)
    assert data.arguments["gain"] == 0.5
    torch.testing.assert_close(data.targets, net.block(exact, size, gain=0.5).detach())
    assert data.rows.tolist() == [0] * 64 + [1] * 64
    positional, named = data.batch(torch.tensor([0, 100]), torch.device("cpu"))
    assert [len(value) for value in positional] == [2, 2]
    assert named == {"gain": 0.5}
    assert not any(module._forward_hooks for module in net.modules())


def test_capture_keeps_what_fits(net: Net, calls: Calls) -> None:
    student = student_of(net)
    with exact_activations(student):
        whole = capture(student, net, "block", calls, seed=0)
        # 25 numbers of 4 bytes a sample, two calls
        part = capture(student, net, "block", calls, seed=0, memory=2 * 10 * 25 * 4)
        again = capture(student, net, "block", calls, seed=0, memory=2 * 10 * 25 * 4)
        other = capture(student, net, "block", calls, seed=1, memory=2 * 10 * 25 * 4)
    assert part.rows.tolist() == [0] * 10 + [1] * 10
    found = [(whole.targets == row).all(1).nonzero().item() for row in part.targets]
    assert torch.equal(whole.arguments[0][found], part.arguments[0])
    assert torch.equal(again.targets, part.targets)
    assert not torch.equal(other.targets, part.targets)


def test_learned_rounding_beats_the_nearest(net: Net, calls: Calls) -> None:
    student = student_of(net)
    nearest = copy.deepcopy(student)
    done = reconstruct_weights(student, net, calls, QUICK, seed=1)
    assert [unit.unit.name for unit in done] == ["first", "block", "last"]
    assert all(unit.samples == 128 for unit in done)
    # The first layer starts from the same inputs; the later ones are measured after the earlier.
    for unit in done:
        assert unit.after < 0.7 * unit.before, unit
    with exact_activations(student), exact_activations(nearest):
        assert error(student, net, calls) < 0.5 * error(nearest, net, calls)
    for name, layer in student.quantized_layers().items():
        old = nearest.quantized_layers()[name].weight
        assert isinstance(layer.weight, StaticWeight)
        assert torch.equal(layer.weight.scale, old.scale)
        # Only up or down: a code differs from the nearest by one at most.
        moved = layer.weight.codes.int() - old.codes.int()
        assert moved.abs().max() == 1
    assert not any(parameter.requires_grad for parameter in student.parameters())


def test_no_update_is_the_nearest_rounding(net: Net, calls: Calls) -> None:
    student = student_of(net)
    before = copy.deepcopy(student.state_dict())
    done = reconstruct_weights(student, net, calls, RoundingFit(updates=0))
    assert all(unit.before == unit.after for unit in done)
    for key, value in student.state_dict().items():
        assert torch.equal(value, before[key]) or value.isnan().all(), key


def test_the_seed_decides(net: Net, calls: Calls) -> None:
    fit = RoundingFit(updates=40, rate=1e-2, batch=8)
    codes = []
    for seed in (0, 0, 1):
        student = student_of(net)
        reconstruct_weights(student, net, calls, fit, seed=seed)
        codes.append([layer.weight.codes for layer in student.quantized_layers().values()])
    assert all(torch.equal(a, b) for a, b in zip(codes[0], codes[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(codes[0], codes[2], strict=True))


def test_chosen_layers_and_given_weights(net: Net, calls: Calls) -> None:
    student = student_of(net)
    weight = net.block.out_layers.weight.detach() * 1.02
    grids = student.network.block.out_layers.weight
    done = reconstruct_weights(
        student,
        net,
        calls,
        RoundingFit(updates=0),
        layers=["block.out_layers"],
        weights={"block.out_layers": weight},
    )
    assert [unit.unit.layers for unit in done] == [("block.out_layers",)]
    expected = AdaRoundWeight.from_static(weight, grids).commit().codes
    assert torch.equal(student.network.block.out_layers.weight.codes, expected)


@pytest.mark.parametrize("tables", ["per_step", "shared"])
def test_learned_steps_lower_the_error(net: Net, calls: Calls, tables: str) -> None:
    # The first layer's error would hide what the others gain.
    exact_first = "full; first = full_precision"
    student = student_of(net, "w8a3", exact_first, activation_steps=tables)
    calibrate_on_calls(student, calls)
    with torch.no_grad():
        for layer in student.quantized_layers().values():
            layer.activation.scale.mul_(1.8)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    start = error(student, net, calls)
    done = reconstruct_steps(student, net, calls, StepFit(updates=400, rate=2e-2, exponent=2.0))
    assert [unit.unit.name for unit in done] == ["block", "last"]
    for unit in done:
        assert unit.after < 0.8 * unit.before, unit
    assert error(student, net, calls) < 0.6 * start
    for key, value in student.state_dict().items():
        if key.endswith("activation.scale"):
            assert len(value) == (2 if tables == "per_step" else 1)
            assert (value != before[key]).all(), key
        else:
            assert torch.equal(value, before[key]), key
    assert not student.trainable
    assert all(parameter.grad is None for parameter in student.parameters())


def test_what_cannot_be_reconstructed_is_named(net: Net, calls: Calls) -> None:
    with pytest.raises(BenchError, match="needs calibration calls"):
        reconstruct_weights(student_of(net), net, [])
    trained = quantize(net, "efficientdm", "w4a4", timesteps=TIMES, policy="full")
    with pytest.raises(BenchError, match="rounding of 'first' cannot be learned"):
        reconstruct_weights(trained, net, calls)
    static = quantize(net, "rtn", timesteps=TIMES, policy="full; first = static_8bit")
    calibrate_on_calls(static, calls)
    with pytest.raises(BenchError, match="the input of 'first' has a fixed step size"):
        reconstruct_steps(static, net, calls, StepFit(updates=1), layers=["first"])


def test_a_broken_loss_stops_with_the_place(net: Net, calls: Calls) -> None:
    student = student_of(net)
    fit = RoundingFit(updates=3, rate=float("nan"), warm_up=0.0)
    with pytest.raises(BenchError, match="reconstruction of 'first' diverged at update 2 of 3"):
        reconstruct_weights(student, net, calls, fit)
    assert all(isinstance(one.weight, StaticWeight) for one in student.quantized_layers().values())


def test_a_latent_diffusion_unet_unit_by_unit(shared_toy: LatentDiffusion) -> None:
    """Transformer, residual blocks, context and embedding, at the official policy."""
    random = torch.Generator().manual_seed(9)
    context = shared_toy.context(torch.arange(4))
    assert context is not None
    calls = [
        (torch.randn(4, 3, 4, 4, generator=random), torch.full((4,), t), context.detach())
        for t in TIMES
    ]
    student = quantize(shared_toy.unet, "rtn", "w3a8", timesteps=TIMES)
    fit = RoundingFit(updates=60, batch=4, rate=2e-2, penalty=1e-4)
    done = reconstruct_weights(student, shared_toy.unet, calls, fit)
    held = [name for one in done for name in one.unit.layers]
    assert sorted(held) == sorted(student.low_bit_layers())
    assert {"residual", "transformer", "layer"} == {one.unit.kind for one in done}
    assert sum(one.after < one.before for one in done) >= 0.8 * len(done)
    calibrate_on_calls(student, calls)
    steps = reconstruct_steps(student, shared_toy.unet, calls, StepFit(updates=3, batch=4))
    assert [one.unit for one in steps] == [one.unit for one in done]
    assert all(parameter.grad is None for parameter in shared_toy.unet.parameters())
