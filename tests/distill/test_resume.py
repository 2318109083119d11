"""What a training checkpoint holds, and what a resumed training need not do again."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.distill import (
    Optimiser,
    Trajectories,
    calibrate,
    distill,
    guided_loss,
    loop,
    post_training,
    stage_log,
    train,
    train_student,
)
from hqdm_bench.distill.post_training import Work
from hqdm_bench.distill.train import Trained
from hqdm_bench.methods import Calibrate, Distill, Stage, build_student
from hqdm_bench.methods.options import QatOptions
from hqdm_bench.models import LatentDiffusion


class KilledError(Exception):
    pass


def spec(name: str, **options: str) -> MethodSpec:
    return MethodSpec(name, name, name, options)


def assert_same(resumed: Trained, undisturbed: Trained) -> None:
    """All but the time it took."""
    assert resumed.history == undisturbed.history
    assert resumed.noise_error == undisturbed.noise_error
    assert resumed.cost.repeatable() == undisturbed.cost.repeatable()
    assert resumed.cost.seconds.keys() == undisturbed.cost.seconds.keys()
    expected = undisturbed.student.state_dict()
    for key, value in resumed.student.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.fixture(params=["hqdm", "efficientdm"])
def method(request: pytest.FixtureRequest) -> MethodSpec:
    return spec(request.param)


# The last keeps calibrated step sizes that it does not train.
@pytest.mark.parametrize(
    "method", [spec("hqdm"), spec("efficientdm"), spec("lsq"), spec("lsq", attention="quantized")]
)
def test_a_resumed_training_is_not_calibrated_again(
    method: MethodSpec,
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    arguments = (method, teacher, trajectories, Bits(4, 4), recipe, 0)
    monkeypatch.setattr(train, "distill", partial(distill, checkpoint_every=1))
    undisturbed = train_student(*arguments)
    calls = 0

    def dying(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > recipe.steps + 1:
            raise KilledError
        return guided_loss(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(loop, "guided_loss", dying)
        train_student(*arguments, path)
    monkeypatch.setattr(train, "calibrate", None)
    resumed = train_student(*arguments, path)
    assert_same(resumed, undisturbed)


@dataclass(frozen=True)
class Shift(Stage):
    """Adds to the first bias, which is not trained."""

    value: float


def shift(stage: Shift, work: Work) -> None:
    layer = next(iter(work.student.quantized_layers().values()))
    assert layer.bias is not None
    layer.bias.data += stage.value
    work.log.samples += 1


@pytest.mark.parametrize("alive", [2, 3, 4, 5, 6])
def test_stages_around_a_distillation_are_done_once(
    alive: int,
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = spec("efficientdm")
    stages = Calibrate(), Shift(0.5), Distill(), Shift(0.25)
    monkeypatch.setattr(QatOptions, "stages", lambda _: stages)
    monkeypatch.setitem(post_training.RUNNERS, Shift, shift)
    monkeypatch.setattr(train, "distill", partial(distill, checkpoint_every=1))
    arguments = (method, teacher, trajectories, Bits(4, 4), recipe, 0)
    undisturbed = train_student(*arguments)

    count = 0

    def dying(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, object]) -> None:
        nonlocal count
        write_tensors(path, tensors, header)
        count += 1
        if count == alive:
            count = 0
            raise KilledError

    for module in (loop, stage_log):
        monkeypatch.setattr(module, "write_tensors", dying)
    path, killed = tmp_path / "checkpoint.safetensors", 0
    while True:
        try:
            resumed = train_student(*arguments, path)
            break
        except KilledError:
            killed += 1
    assert killed > 0
    assert_same(resumed, undisturbed)


def test_a_checkpoint_holds_what_is_trained_and_the_fixed_ranges(
    method: MethodSpec,
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
    tmp_path: Path,
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    trained = train_student(method, teacher, trajectories, Bits(4, 4), recipe, 0, path)
    tensors, _ = read_tensors(path)
    parameters = {
        name: value for name, value in trained.student.named_parameters() if value.requires_grad
    }
    kinds = {key.split("/")[0] for key in tensors} - {"losses"}
    assert kinds == {"parameter", "mean", "mean_square", "range"}
    for kind in kinds - {"range"}:
        names = {key.removeprefix(f"{kind}/") for key in tensors if key.startswith(f"{kind}/")}
        assert names == set(parameters)
    ranges = {key for key in tensors if key.startswith("range/")}
    assert len(ranges) == 2 * len(trained.student.static_layers())


def test_a_checkpoint_of_an_earlier_format_is_refused(
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    arguments = (spec("hqdm"), teacher, trajectories, Bits(4, 4), recipe, 0, path)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_FORMAT", loop.CHECKPOINT_FORMAT - 1)
        train_student(*arguments)
    with pytest.raises(BenchError, match="checkpoint of another run; delete it"):
        train_student(*arguments)


def test_a_damaged_checkpoint_is_named(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    arguments = (spec("hqdm"), teacher, trajectories, Bits(4, 4), recipe, 0, path)
    train_student(*arguments)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BenchError, match="not a whole safetensors file .*delete it and run again"):
        train_student(*arguments)
    path.write_bytes(whole)
    tensors, header = read_tensors(path)
    del tensors[next(key for key in tensors if key.startswith("range/"))]
    write_tensors(path, tensors, header)
    with pytest.raises(BenchError, match="has no fitting range/"):
        train_student(*arguments)


TEXT = {"scale_table": "separate", "scale_aware": "gradient"}


def test_steps_of_rows_and_gradient_factors_are_resumed(
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = MethodSpec("efficientdm", "", "efficientdm", TEXT)
    test_a_resumed_training_is_not_calibrated_again(
        method, teacher, recipe, trajectories, tmp_path, monkeypatch
    )
    tensors, header = read_tensors(tmp_path / "checkpoint.safetensors")
    assert tensors["row_steps"].tolist() == [recipe.trajectories] * recipe.steps
    factors, rates = header["gradient_factors"], header["rates"]
    assert len(factors) == len(rates)
    low_rank = [(rate, factor) for rate, factor in zip(rates, factors, strict=True) if factor != 1]
    assert len({rate for rate, _ in low_rank}) == 1
    assert len({factor for _, factor in low_rank}) > 1


def test_everything_an_optimiser_knows_is_restored(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    student = build_student(
        MethodSpec("efficientdm", "", "efficientdm", TEXT), teacher, Bits(4, 4), recipe, 0
    )
    calibrate(student, teacher, trajectories, recipe, 0)
    optimiser = Optimiser(student, recipe)
    model = teacher.with_unet(student)
    for index in (3, 2, 2):
        optimiser.update(guided_loss(model, trajectories, 0, index))
    state = {name: value.clone() for name, value in optimiser.state().items()}
    assert state["row_steps"].tolist() == [0, 0, 2, 1]
    other = Optimiser(student, recipe)  # its rates and factors are those of the scales now
    assert other.state()["row_steps"].tolist() == [0, 0, 0, 0]
    assert other.settings != optimiser.settings
    other.restore(state, optimiser.settings)
    assert other.settings == optimiser.settings
    assert other.state().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in other.state().items())


def test_only_the_row_of_the_step_in_use_moves(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    student = build_student(
        MethodSpec("efficientdm", "", "efficientdm", TEXT), teacher, Bits(4, 4), recipe, 0
    )
    calibrate(student, teacher, trajectories, recipe, 0)
    optimiser = Optimiser(student, recipe)
    tables = {
        (name, kind): (table, table.detach().clone())
        for name, layer in student.low_bit_layers().items()
        for kind, table in layer.activation.named_parameters()
    }
    optimiser.update(guided_loss(teacher.with_unet(student), trajectories, 0, 2))
    for name, (table, before) in tables.items():
        assert (table != before).tolist() == [False, False, True, False], name
