"""What sets LSQ and QuEST apart: their trained weights on disk and as integers, their stages."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hqdm_bench.catalogue import Recipe, Scale
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.distill.post_training import post_train
from hqdm_bench.integer import convert
from hqdm_bench.methods import Distill, FineTune, Student, load_student, quantize, save_student
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import ChannelStep, StaticWeight, TrainedWeight, coverage

TIMES = (1, 501)
Calls = list[tuple[Tensor, Tensor, Tensor]]


@pytest.mark.parametrize("grids", ["channel", "tensor"])
def test_a_committed_student_is_small_and_the_same(
    shared_toy: LatentDiffusion, calls: Calls, tmp_path: Path, grids: str
) -> None:
    student = quantize(shared_toy.unet, "lsq", timesteps=TIMES, weight_grids=grids)
    calibrate_on_calls(student, calls)
    with torch.no_grad():
        for layer in student.low_bit_layers().values():
            assert isinstance(layer.weight, TrainedWeight)
            layer.weight.weight += 0.7 * layer.weight.scale  # as training may leave it
        expected = [student(*call) for call in calls]
    save_student(student, tmp_path / "floats.safetensors")
    assert not student.committed
    assert student.commit().committed
    assert all(
        isinstance(layer.weight, StaticWeight) for layer in student.low_bit_layers().values()
    )
    path = tmp_path / "codes.safetensors"
    save_student(student, path)
    assert path.stat().st_size < 0.5 * (tmp_path / "floats.safetensors").stat().st_size
    for file in (path, tmp_path / "floats.safetensors"):
        loaded = load_student(file, shared_toy.unet)
        assert loaded.committed == (file == path)
        with torch.no_grad():
            for call, out in zip(calls, expected, strict=True):
                assert torch.equal(loaded(*call), out)


@pytest.mark.parametrize("preset", ["as_code", "as_paper"])
@pytest.mark.parametrize("commit", [True, False])
def test_lsq_multiplies_integers(
    shared_toy: LatentDiffusion, calls: Calls, preset: str, commit: bool
) -> None:
    student = quantize(shared_toy.unet, "lsq", timesteps=TIMES, preset=preset)
    calibrate_on_calls(student, calls)
    if commit:
        student.commit()
    integer = convert(student)
    assert all(layer.integer for layer in integer.report.layers)
    with torch.no_grad():
        for call in calls:
            out, expected = integer(*call), student(*call)
            assert (out - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize(("options", "share"), [({}, 0.1), ({"weight_rate": 30}, 0.3)])
def test_rates_of_full_weights(
    shared_toy: LatentDiffusion, recipe: Recipe, options: dict[str, int], share: float
) -> None:
    student = quantize(shared_toy.unet, "lsq", timesteps=TIMES, **options)
    groups = student.parameter_groups(recipe)
    layers = list(student.low_bit_layers().values())
    assert [group["name"] for group in groups] == ["weight"] * len(layers) + [
        "weight_scale",
        "activation",
    ]
    for group, layer in zip(groups, layers, strict=False):
        rate = share * layer.weight.scale.mean().item() / recipe.lora_lr_divisor
        assert group["lr"] == pytest.approx(rate, rel=1e-6)
        assert group["params"] == [layer.weight.weight]
    with pytest.raises(BenchError, match="asymmetric"):
        quantize(shared_toy.unet, "lsq", mixed="kurtosis", weight_grid="symmetric")


def test_lsq_is_trained_along_trajectories() -> None:
    student = quantize(torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(6))), "lsq")
    assert not student.options.post_training
    assert isinstance(student.options.stages()[1], Distill)


def test_quest_from_calls_alone(shared_toy: LatentDiffusion, calls: Calls) -> None:
    """All stages on any module, at a scale of seconds."""
    student = quantize(shared_toy.unet, "quest", "w4a4", timesteps=TIMES)
    plain = quantize(shared_toy.unet, "quest", "w4a4", timesteps=TIMES)
    kinds = [type(stage).__name__ for stage in student.options.stages()]
    assert kinds == ["RoundWeights", "Calibrate", "FineTune", "FineTune"]
    post_train(student, shared_toy.unet, calls, Scale(updates=0.0001, rates=20, data=0.01))
    assert student.calibrated
    own = student.low_bit_layers()["middle_block.0.emb_layers.1"].weight
    old = plain.low_bit_layers()["middle_block.0.emb_layers.1"].weight
    assert isinstance(own, StaticWeight)
    assert torch.equal(own.scale, old.scale)
    assert not torch.equal(own.codes, old.codes)


def test_channel_steps_are_marked_and_refused(shared_toy: LatentDiffusion, calls: Calls) -> None:
    at = {
        bits: quantize(shared_toy.unet, "quest", bits, timesteps=TIMES) for bits in ("w4a4", "w4a8")
    }
    shares = {}
    for bits, student in at.items():
        calibrate_on_calls(student, calls)
        shares[bits] = coverage(student, calls[0])["channel_steps"]["mac_share"]
    assert shares == {"w4a4": 1.0, "w4a8": 0.0}
    with pytest.raises(BenchError, match=r"step size of its own.*activation_channels 'tensor'"):
        convert(at["w4a4"])
    assert convert(at["w4a8"]).report.layers


def test_quest_exempts_and_presets(shared_toy: LatentDiffusion) -> None:
    def stages(student: Student) -> list[FineTune]:
        return [stage for stage in student.options.stages() if isinstance(stage, FineTune)]

    code = quantize(shared_toy.unet, "quest", "w4a4", timesteps=TIMES)
    bits = {name: layer.activation.bits for name, layer in code.low_bit_layers().items()}
    assert {name for name, width in bits.items() if width == 8} == {"input_blocks.0.0", "out.2"}
    assert all(
        isinstance(layer.activation, ChannelStep) for layer in code.low_bit_layers().values()
    )
    assert [stage.repeat_output for stage in stages(code)] == [True, True]
    assert [stage.local for stage in stages(code)] == [True, False]
    paper = quantize(shared_toy.unet, "quest", "w4a4", preset="as_paper", timesteps=TIMES)
    assert [stage.repeat_output for stage in stages(paper)] == [False, False]
    assert [stage.local for stage in stages(paper)] == [True, True]
    lsun = quantize(shared_toy.unet, "quest", temporal_epochs=200, timesteps=TIMES)
    assert [stage.epochs for stage in stages(lsun)] == [200, 20]
