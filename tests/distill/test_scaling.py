"""DMQ's parts on the toy: learned scales, factors by vote, and all stages together."""

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Scale
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.distill import calibrate_on_calls, reconstruct_weights, stage_log
from hqdm_bench.distill.factors import choose_factors
from hqdm_bench.distill.post_training import post_train
from hqdm_bench.distill.rounding import learned_rounding
from hqdm_bench.distill.scaling import layer_inputs, learn_scalings, step_row
from hqdm_bench.distill.stage_log import StageLog
from hqdm_bench.methods import RoundingFit, Student, quantize
from hqdm_bench.methods.dmq import DmqOptions
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import (
    EmaObserver,
    ScalingSettings,
    ShiftedTable,
    float_weight,
    learn_scaling,
    vote,
)
from hqdm_bench.quantization.blocks import Unit

TIMES = (1, 501)
QUICK = ScalingSettings(iterations=10, batch=8, learning_rate=2e-2, alpha=2.0)
# A block of each kind and the skip connections.
FEW = (
    "full; * = full_precision; middle_block.0.*_layers.? = low_bit; *.skip_connection = low_bit; "
    "middle_block.1.* = low_bit; input_blocks.0.0 = low_bit"
)
Calls = list[tuple[Tensor, Tensor, Tensor]]


@pytest.fixture(scope="module")
def calls(shared_toy: LatentDiffusion) -> Calls:
    """Two calls a timestep."""
    random = torch.Generator().manual_seed(9)
    context = shared_toy.context(torch.arange(4)).detach()
    return [
        (torch.randn(4, 3, 4, 4, generator=random), torch.full((4,), t), context)
        for t in TIMES
        for _ in range(2)
    ]


@pytest.fixture(scope="module")
def unet(shared_toy: LatentDiffusion) -> nn.Module:
    """Some of whose channels have outliers, on the skip connection, too."""
    module = copy.deepcopy(shared_toy.unet)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("in_layers.0.weight", "norm1.weight", "norm3.weight")):
                parameter[::8] *= 6
            if name == "input_blocks.1.0.out_layers.3.weight":
                parameter[::4] *= 8
    return module


def student_of(unet: nn.Module, bits: str = "w4a6", **options: str) -> Student:
    return quantize(unet, "dmq", bits, timesteps=TIMES, policy=FEW, **options)


def error(student: Student, unet: nn.Module, calls: Calls) -> float:
    with torch.no_grad():
        return sum(float((student(*call) - unet(*call)).square().mean()) for call in calls)


def run(unet: nn.Module, calls: Calls, seed: int = 3, checkpoint: Path | None = None) -> Student:
    """All stages, scaled down: 12 updates of scales, 40 of the rounding."""
    student = student_of(unet)
    post_train(student, unet, calls, Scale(updates=0.002, rates=10), seed, checkpoint)
    return student


@pytest.fixture(scope="module")
def finished(unet: nn.Module, calls: Calls) -> Student:
    return run(unet, calls)


def test_a_layers_scales_are_learned_on_its_inputs_in_full_precision(
    unet: nn.Module, calls: Calls
) -> None:
    student = student_of(unet)
    learn_scalings(student, unet, calls, QUICK, seed=3)
    name = "middle_block.0.in_layers.2"
    layer, source = student.quantized_layers()[name], unet.get_submodule(name)
    seen: list[Tensor] = []
    hook = source.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        for call in calls:
            unet(*call)
    hook.remove()
    rows = torch.tensor([0, 0, 1, 1]).repeat_interleave(4)
    random = generator("learn-scaling", 3, name)
    tau = learn_scaling(source, torch.cat(seen), rows, 2, (4, 6), QUICK, random)
    torch.testing.assert_close(layer.scaling.tau, tau, rtol=0, atol=0)
    assert (tau != 1).all()
    scaled = source.weight.detach() * tau.view(1, -1, 1, 1)
    assert (layer.weight(0) - scaled).abs().max() <= scaled.abs().max()
    codes = copy.deepcopy(layer.weight)
    codes.requantize(scaled, "mse")
    assert torch.equal(codes.codes, layer.weight.codes)


def test_channels_given_twice_still_round_apart(unet: nn.Module, calls: Calls) -> None:
    student = student_of(unet, outlier_split=10)
    learn_scalings(student, unet, calls, QUICK, seed=3)
    (name,) = [n for n in student.quantized_layers() if n.startswith("middle_block.0.in_layers")]
    layer = student.quantized_layers()[name]
    assert layer.scaling.repeated is not None
    before = layer.weight.effective_codes()
    with learned_rounding(student, unet, Unit(name, "layer", (name,))):
        pass  # not a single update
    after = layer.weight.effective_codes()
    assert torch.equal(after, before)
    own, twice = after.shape[1] - len(layer.scaling.repeated), layer.scaling.repeated.long()
    assert not torch.equal(after[:, own:], after[:, twice])


def test_halves_of_a_split_layer_learn_from_their_channels(unet: nn.Module, calls: Calls) -> None:
    student = student_of(unet)
    learn_scalings(student, unet, calls, QUICK, seed=3)
    name = "output_blocks.1.0.skip_connection"
    x, rows = layer_inputs(unet, [name], calls, [0, 0, 1, 1], 0)[name]
    source, half = unet.get_submodule(name), student.quantized_layers()[f"{name}.second"]
    part = nn.Conv2d(32, 32, 1, bias=False)
    part.weight = nn.Parameter(source.weight.detach()[:, 32:])
    random = generator("learn-scaling", 3, f"{name}.second")
    tau = learn_scaling(part, x[:, 32:], rows, 2, (4, 6), QUICK, random)
    torch.testing.assert_close(half.scaling.tau, tau, rtol=1e-4, atol=1e-6)


def test_no_group_of_layers_and_no_other_layer_changes_a_layers_scales(
    unet: nn.Module, calls: Calls
) -> None:
    one, two = student_of(unet), student_of(unet)
    learn_scalings(one, unet, calls, QUICK)
    largest = max(4 * 4 * 4 * 64 * 4 * len(calls), 16 * 4 * 4 * 128 * 4)  # one layer's inputs
    learn_scalings(two, unet, calls, QUICK, memory=largest)
    for name, layer in one.low_bit_layers().items():
        twin = two.low_bit_layers()[name]
        assert torch.equal(layer.scaling.tau, twin.scaling.tau), name
        assert torch.equal(layer.weight.codes, twin.weight.codes), name


def test_little_memory_keeps_some_samples_of_every_call(unet: nn.Module, calls: Calls) -> None:
    name = "middle_block.0.in_layers.2"
    full, rows = layer_inputs(unet, [name], calls, [0, 0, 1, 1], 0)[name]
    assert rows.tolist() == [0] * 8 + [1] * 8
    some, places = layer_inputs(unet, [name], calls, [0, 0, 1, 1], 0, full.nbytes // 2)[name]
    assert places.tolist() == [0] * 4 + [1] * 4
    assert all((full == sample).flatten(1).all(1).any() for sample in some)
    one, _ = layer_inputs(unet, [name], calls, [0, 0, 1, 1], 0, 1)[name]
    assert len(one) == 4


def test_the_rounding_starts_from_the_scaled_weight(unet: nn.Module, calls: Calls) -> None:
    """Rounded up or down from tau W, never further away, after a resume, too."""
    student = student_of(unet)
    learn_scalings(student, unet, calls, QUICK)
    resumed = student_of(unet)
    resumed.load_state_dict(student.state_dict())
    for made in (student, resumed):
        reconstruct_weights(made, unet, calls, RoundingFit(updates=5, batch=8, rate=1e-2))
    for name, layer in student.low_bit_layers().items():
        weight = float_weight(student.network, unet, name)
        scaled = weight * layer.scaling.tau.view(1, -1, *[1] * (weight.dim() - 2))
        low, high = -layer.weight.zero, 15 - layer.weight.zero
        exact = torch.minimum(torch.maximum(scaled / layer.weight.scale, low), high)
        codes = layer.weight.codes - layer.weight.zero
        assert (codes - exact).abs().max() <= 1 + 1e-4, name
        assert torch.equal(layer.weight.codes, resumed.low_bit_layers()[name].weight.codes)


def test_factors_are_the_votes_of_a_steps_samples(unet: nn.Module, calls: Calls) -> None:
    student = student_of(unet, "w8a4")
    calibrate_on_calls(student, calls)
    shifted = {
        name: layer
        for name, layer in student.low_bit_layers().items()
        if isinstance(layer.activation, ShiftedTable)
    }
    skips = [f"output_blocks.{block}.0.skip_connection" for block in (0, 1)]
    assert list(shifted) == [f"{skip}.{half}" for skip in skips for half in ("first", "second")]
    first = next(iter(shifted))
    expected = votes(student, first, calls)
    choose_factors(student, calls, agreement=0.5)
    for row, chosen in expected.items():
        found = shifted[first].activation.factors[row]
        assert torch.equal(found, torch.exp2(-vote(chosen, 0.5).float()))
    assert any((layer.activation.factors != 1).any() for layer in shifted.values())


def votes(student: Student, name: str, calls: Calls) -> dict[int, Tensor]:
    layer = student.quantized_layers()[name]
    found: dict[int, list[Tensor]] = {0: [], 1: []}

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        row = student.step.index
        found[row].append(layer.activation.preferences(layer.quantizer_input(args[0]), row))

    hook = layer.register_forward_pre_hook(keep)
    with torch.no_grad():
        for call in calls:
            student(*call)
    hook.remove()
    return {row: torch.cat(chosen) for row, chosen in found.items()}


def test_shared_factors_are_one_vote(unet: nn.Module, calls: Calls) -> None:
    student = student_of(unet, "w8a4", preset="as_paper")
    calibrate_on_calls(student, calls)
    first = next(
        name
        for name, layer in student.low_bit_layers().items()
        if isinstance(layer.activation, ShiftedTable)
    )
    chosen = torch.cat(list(votes(student, first, calls).values()))
    choose_factors(student, calls, agreement=0.5)
    found = student.quantized_layers()[first].activation.factors
    assert torch.equal(found[0], torch.exp2(-vote(chosen, 0.5).float()))
    assert len(found) == 1


def test_all_stages_lower_the_error(unet: nn.Module, calls: Calls, finished: Student) -> None:
    plain = student_of(unet)
    calibrate_on_calls(plain, calls)
    assert error(finished, unet, calls) < 0.9 * error(plain, unet, calls)


def test_the_seed_decides(unet: nn.Module, calls: Calls, finished: Student) -> None:
    other = student_of(unet)
    learn_scalings(other, unet, calls, QUICK, seed=4)
    again = student_of(unet)
    learn_scalings(again, unet, calls, QUICK, seed=4)
    for name, layer in other.low_bit_layers().items():
        tau = layer.scaling.tau
        assert torch.equal(again.low_bit_layers()[name].scaling.tau, tau)
        assert not torch.equal(finished.low_bit_layers()[name].scaling.tau, tau)


@pytest.mark.parametrize("marks", [5, 14])
def test_a_killed_run_goes_on_where_it_was(
    unet: nn.Module,
    calls: Calls,
    finished: Student,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    marks: int,
) -> None:
    """Within the scales, and within the rounding of what was scaled."""
    path, mark, parts = tmp_path / "work.safetensors", StageLog.mark, []

    def kill(log: StageLog, part: str) -> None:
        mark(log, part)
        parts.append(part)
        if len(parts) == marks:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StageLog, "mark", kill)
        patch.setattr(stage_log, "SECONDS_KEPT", 0)
        run(unet, calls, checkpoint=path)
    resumed = run(unet, calls, checkpoint=path)
    for key, value in finished.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_settings_are_the_released_ones_of_a_data_set() -> None:
    stages = {data: DmqOptions(dataset=data).stages() for data in ("imagenet", "churches")}
    kinds = [type(stage).__name__ for stage in stages["imagenet"]]
    assert kinds == ["LearnScaling", "RoundWeights", "Calibrate", "ChooseFactors"]
    for data, (updates, alpha) in {"imagenet": (6000, 20), "churches": (4000, 25)}.items():
        found = stages[data][0].scaled(Scale())
        assert (found.iterations, found.alpha, found.batch) == (updates, alpha, 32)
        assert (found.learning_rate, found.momentum) == (1e-3, 0.95)
    assert [type(stage).__name__ for stage in DmqOptions(factors="none").stages()] == kinds[:3]


def test_ranges_are_the_moving_average_of_the_scaled_inputs(unet: nn.Module, calls: Calls) -> None:
    student = student_of(unet)
    learn_scalings(student, unet, calls, QUICK)
    layer = student.quantized_layers()["input_blocks.0.0"]
    tau = layer.scaling.tau.clone()
    calibrate_on_calls(student, calls)
    assert torch.equal(layer.scaling.tau, tau)  # learned, not set by calibration
    observer = EmaObserver(shuffled=True)
    for x, _, _ in calls[2:]:
        observer.observe(x / tau.view(-1, 1, 1))
    low, high = observer.range
    torch.testing.assert_close(layer.activation.scale[1].detach(), (high - low) / 63)


def test_what_cannot_be_learned_from_is_refused(unet: nn.Module, calls: Calls) -> None:
    student = student_of(unet)
    broken: Callable[..., None] = functools.partial(learn_scalings, student, unet)
    with pytest.raises(BenchError, match="at least one"):
        broken([], QUICK)
    with pytest.raises(BenchError, match="diverged; lower the rate"):
        broken([(x * math.nan, *rest) for x, *rest in calls], QUICK)
    with pytest.raises(BenchError, match="calibrate the student"):
        choose_factors(student_of(unet), calls)
    assert step_row(student, calls[-1]) == 1
