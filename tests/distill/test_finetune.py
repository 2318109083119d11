"""QuEST's selective fine-tuning on the toy: what it trains, in which order, and what is left."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Scale
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.distill.call_pool import CallPool
from hqdm_bench.distill.finetune import fine_tune
from hqdm_bench.methods import Student, quantize
from hqdm_bench.methods.stage_finetune import attention_tuning, temporal_tuning
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import StaticWeight

TIMES = (1, 501)
Calls = list[tuple[Tensor, Tensor, Tensor]]
SHORT = Scale(updates=0.007, rates=30)  # two epochs of the first stage, one of the second


@pytest.fixture(scope="module")
def calls(shared_toy: LatentDiffusion) -> Calls:
    random = torch.Generator().manual_seed(9)
    context = shared_toy.context(torch.arange(4))
    assert context is not None
    return [
        (torch.randn(4, 3, 4, 4, generator=random), torch.full((4,), t), context.detach())
        for t in TIMES
        for _ in range(2)
    ]


def student_of(toy: LatentDiffusion, calls: Calls, bits: str = "w4a8", **options: Any) -> Student:
    student = quantize(toy.unet, "quest", bits, timesteps=TIMES, **options)
    calibrate_on_calls(student, calls)
    return student


def changed(before: Student, after: Student) -> set[str]:
    states = before.state_dict(), after.state_dict()
    return {
        key.removeprefix("network.")
        for key, value in states[0].items()
        if not torch.equal(value, states[1][key])
    }


@pytest.mark.parametrize("part", ["temporal", "attention"])
def test_only_its_part_changes(shared_toy: LatentDiffusion, calls: Calls, part: str) -> None:
    stage = (temporal_tuning() if part == "temporal" else attention_tuning()).scaled(SHORT)
    student = student_of(shared_toy, calls)
    before = copy.deepcopy(student)
    losses = fine_tune(student, shared_toy.unet, calls, stage, seed=1)
    batches = 4 if part == "temporal" else 2  # 8 samples a timestep in all
    assert len(losses) == len(TIMES) * stage.epochs * batches
    moved = changed(before, student)
    kinds = {
        "weights": {key for key in moved if key.endswith(".weight.codes")},
        "biases": {key for key in moved if key.endswith(".bias")},
        "steps": {key for key in moved if key.endswith(".activation.scale")},
    }
    assert set.union(*kinds.values()) == moved  # no grid, no zero-point, nothing of other layers
    assert all(kinds.values())
    own = ("emb_layers",) if part == "temporal" else ("ff.net", "to_q", "attn1.to_k", "attn1.to_v")
    for key in kinds["weights"] | kinds["biases"]:
        assert any(name in key for name in own), key
    if part == "temporal":
        assert all("emb_layers" in key for key in kinds["steps"])
    else:
        assert not any("emb" in key for key in kinds["steps"])
        assert {"input_blocks.0.0.activation.scale", "out.2.activation.scale"} <= kinds["steps"]
    layers = student.quantized_layers().values()
    assert all(isinstance(layer.weight, StaticWeight) for layer in layers)
    assert not any(entry.requires_grad for entry in student.state_dict(keep_vars=True).values())
    assert all(parameter.grad is None for parameter in shared_toy.parameters())


PARTS = {"temporal": "*emb_layers*", "attention": "*ff.net.*"}


@pytest.mark.parametrize("output", ["every_layer", "once"])
@pytest.mark.parametrize("part", list(PARTS))
def test_the_output_comes_nearer(
    shared_toy: LatentDiffusion, calls: Calls, part: str, output: str
) -> None:
    """With the layers of a part alone quantized, to few bits."""
    policy = f"full; * = full_precision; {PARTS[part]} = low_bit"
    student = student_of(shared_toy, calls, "w3a8", policy=policy, output_errors=output)

    @torch.no_grad()
    def error() -> float:
        pairs = [(student(*call), shared_toy.unet(*call)) for call in calls]
        return sum(float((a - b).square().mean()) for a, b in pairs)

    before = error()
    stage = {found.part: found for found in student.options.stages()[2:]}[part]
    stage = stage.scaled(Scale(0.05 if part == "temporal" else 1, 50))
    fine_tune(student, shared_toy.unet, calls, stage, seed=1)
    assert error() < 0.8 * before


def test_the_seed_decides(shared_toy: LatentDiffusion, calls: Calls) -> None:
    stage = attention_tuning().scaled(SHORT)
    one, twin, other = (student_of(shared_toy, calls) for _ in range(3))
    for student, seed in ((one, 1), (twin, 1), (other, 2)):
        fine_tune(student, shared_toy.unet, calls, stage, seed)
    assert not changed(one, twin)
    assert changed(one, other)


def test_one_table_for_the_embedding(shared_toy: LatentDiffusion, calls: Calls) -> None:
    """By the text its layers have one set for all timesteps."""
    student = student_of(shared_toy, calls, preset="as_paper")
    layers = student.low_bit_layers()
    assert {len(layer.activation.scale) for name, layer in layers.items() if "emb" in name} == {1}
    assert {len(layer.activation.scale) for name, layer in layers.items() if "emb" not in name} == {
        2
    }
    before = copy.deepcopy(student)
    fine_tune(student, shared_toy.unet, calls, temporal_tuning().scaled(SHORT))
    assert any(key.endswith("activation.scale") for key in changed(before, student))


class Wrapped(nn.Module):
    """A module whose prediction is in something."""

    def __init__(self, module: nn.Module, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.module, self.wrap = module, wrap

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Any:
        return self.wrap(self.module(x, t, context))


@pytest.mark.parametrize("wrap", [lambda out: (out, 1), lambda out: {"sample": out}])
def test_a_prediction_in_a_tuple_or_mapping(
    shared_toy: LatentDiffusion, calls: Calls, wrap: Callable[[Tensor], Any]
) -> None:
    stage = attention_tuning().scaled(SHORT)
    losses = []
    for module in (shared_toy.unet, Wrapped(shared_toy.unet, wrap)):
        student = quantize(module, "quest", "w4a8", timesteps=TIMES, policy="full")
        calibrate_on_calls(student, calls)
        losses.append(fine_tune(student, module, calls, stage, seed=1))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("wrap", [str, len, lambda out: (), lambda out: [out.tolist()]])
def test_a_prediction_that_is_no_tensor_is_refused(
    shared_toy: LatentDiffusion, calls: Calls, wrap: Callable[[Tensor], Any]
) -> None:
    module = Wrapped(shared_toy.unet, wrap)
    student = quantize(module, "quest", "w4a8", timesteps=TIMES, policy="full")
    calibrate_on_calls(student, calls)
    with pytest.raises(BenchError, match="fine-tuning needs a tensor as output, or one in"):
        fine_tune(student, module, calls, attention_tuning().scaled(SHORT))


def test_refusals(shared_toy: LatentDiffusion, calls: Calls) -> None:
    stage = temporal_tuning().scaled(SHORT)
    student = student_of(shared_toy, calls, policy="full; *emb_layers* = full_precision")
    with pytest.raises(BenchError, match="no quantized layer of the temporal part"):
        fine_tune(student, shared_toy.unet, calls, stage)
    bare = quantize(shared_toy.unet, "quest", "w4a4", timesteps=TIMES)
    with pytest.raises(BenchError, match="calibrate"):
        fine_tune(bare, shared_toy.unet, calls, stage)
    with pytest.raises(BenchError, match="calls"):
        fine_tune(student_of(shared_toy, calls), shared_toy.unet, [], stage)


def test_released_settings_and_their_scale() -> None:
    temporal, attention = temporal_tuning(), attention_tuning()
    assert (temporal.epochs, temporal.samples, temporal.batch) == (300, 8, 2)
    assert (attention.epochs, attention.samples, attention.batch) == (20, 64, 4)
    cut = temporal.scaled(Scale(updates=0.005, rates=20, data=0.0625))
    # 6 of 1200 updates a visit: one batch of two samples an epoch
    assert (cut.epochs, cut.samples, cut.weight_rate) == (6, 2, pytest.approx(2e-4))
    assert cut.step_rate == temporal.step_rate
    cut = attention.scaled(Scale(updates=0.005, data=0.0625))
    assert (cut.epochs, cut.samples) == (2, 4)


def test_a_pool_joins_samples_of_calls() -> None:
    first = {"x": torch.arange(3.0)[:, None], "t": torch.full((3,), 7), "flag": True}
    second = {"x": torch.arange(10.0, 12.0)[:, None], "t": torch.full((2,), 7), "flag": True}
    pool = CallPool([first, second])
    assert len(pool) == 5
    batch = pool.batch(torch.tensor([4, 0, 2]))
    assert isinstance(batch, dict)
    assert batch["x"].flatten().tolist() == [0.0, 2.0, 11.0]
    assert batch["t"].tolist() == [7, 7, 7]
    assert batch["flag"] is True
    shared = torch.ones(5, 2)
    (x, context) = CallPool([(torch.zeros(3, 1), shared)]).batch(torch.tensor([1]))
    assert len(x) == 1
    assert context is shared
