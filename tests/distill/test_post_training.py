"""Stages of the post-training methods: order, resume, cost, any module, refusals."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hqdm_bench
from hqdm_bench.catalogue import Bits, MethodSpec, Recipe, Scale
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_metadata
from hqdm_bench.distill import (
    StageLog,
    Trajectories,
    Work,
    calibrate_on_calls,
    calibration_calls,
    reconstruct_steps,
    reconstruct_weights,
    stage_log,
    stages_file,
    train_student,
)
from hqdm_bench.methods import (
    RoundingFit,
    RoundWeights,
    StepFit,
    Student,
    available_methods,
    build_student,
)
from hqdm_bench.models import DDIM, LatentDiffusion

POST_TRAINING = [
    name for name, entry in available_methods().items() if entry.options().post_training
]


class KilledError(Exception):
    pass


def spec(name: str, **options: str) -> MethodSpec:
    return MethodSpec(name, name, name, options)


def state(student: Student) -> dict[str, Tensor]:
    return student.state_dict()


@pytest.mark.parametrize("name", POST_TRAINING)
def test_a_killed_run_continues_where_it_was(
    name: str,
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    arguments = (spec(name), teacher, trajectories, Bits(4, 4), recipe, 0)
    undisturbed = train_student(*arguments)
    saved, kept = StageLog._save, 0

    def dying(log: StageLog) -> None:
        nonlocal kept
        saved(log)
        kept += 1
        if kept % 3 == 0:
            raise KilledError

    monkeypatch.setattr(StageLog, "_save", dying)
    monkeypatch.setattr(stage_log, "SECONDS_KEPT", 0)
    for _ in range(200):
        try:
            resumed = train_student(*arguments, checkpoint)
            break
        except KilledError:
            continue
    assert resumed.noise_error == undisturbed.noise_error
    expected = state(undisturbed.student)
    for key, value in state(resumed.student).items():
        assert torch.equal(value, expected[key]), key
    assert list(resumed.cost.seconds) == list(undisturbed.cost.seconds)
    assert resumed.cost.samples == undisturbed.cost.samples
    assert resumed.history.losses == undisturbed.history.losses


def test_finished_parts_are_kept_once_a_minute(
    teacher: LatentDiffusion, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(stage_log.time, "monotonic", lambda: now)
    student = build_student(spec("rtn"), teacher, Bits(4, 4), recipe, 0)
    path = tmp_path / "stages.safetensors"
    log = StageLog(student, path, "one")
    with log.running(0, RoundWeights()):
        found = []
        for name, later in (("a", 130.0), ("b", 161.0), ("c", 175.0), ("d", 222.0)):
            now = later
            log.mark(name)
            found.append(path.exists() and read_metadata(path)["parts"])
        assert found == [False, ["a", "b"], ["a", "b"], ["a", "b", "c", "d"]]
        assert StageLog(student, path, "one").seconds == {"1 round weights": 122.0}
    assert (read_metadata(path)["stage"], read_metadata(path)["parts"]) == (1, [])


def test_the_stages_of_qdiffusion_are_its_parts_in_order(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    method = spec("qdiffusion")
    trained = train_student(method, teacher, trajectories, Bits(4, 4), recipe, 3)
    assert [name.partition(" ")[2] for name in trained.cost.seconds] == [
        "draw inputs",
        "round weights",
        "calibrate",
        "learn steps",
    ]
    by_hand = build_student(method, teacher, Bits(4, 4), recipe, 3)
    assert recipe.post_training is not None
    scale = recipe.post_training.scale
    calls = hqdm_bench_calls(teacher, recipe, by_hand, 3)
    fits = RoundingFit().scaled(scale), StepFit().scaled(scale)
    assert fits[0].updates == 10
    assert fits[0].rate == pytest.approx(1e-2)
    reconstruct_weights(by_hand, teacher.unet, calls, fits[0], seed=3)
    calibrate_on_calls(by_hand, calls)
    reconstruct_steps(by_hand, teacher.unet, calls, fits[1], seed=3)
    expected = state(by_hand)
    for key, value in state(trained.student).items():
        assert torch.equal(value, expected[key]), key


def hqdm_bench_calls(
    teacher: LatentDiffusion, recipe: Recipe, student: Student, seed: int
) -> list[tuple[Tensor, ...]]:
    assert recipe.post_training is not None
    images = round(student.options.calibration_images * recipe.post_training.scale.data)
    return calibration_calls(teacher, recipe.post_training, images, seed)  # type: ignore[return-value]


def test_ptqd_corrects_the_sampler_it_is_calibrated_for(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    trained = train_student(spec("ptqd"), teacher, trajectories, Bits(4, 4), recipe, 0)
    correction = trained.student.noise_correction
    assert correction is not None
    assert correction.calibrated
    assert correction.timesteps == (1, 251, 501, 751)
    assert (correction.slope >= 0).all()
    assert (correction.residual_std > 0).all()
    # 51 images a step at 2 %, two rows each, and 1024 paths at 2 %
    assert trained.cost.samples == 4 * 2 * 1 + 4 * 20 * 2
    tables = sum(table.numel() for table in correction.buffers())
    plain = train_student(
        spec("ptqd", correction="no"), teacher, trajectories, Bits(4, 4), recipe, 0
    )
    assert trained.cost.extra_parameters == plain.cost.extra_parameters + tables
    assert plain.student.noise_correction is None


def test_another_runs_stages_are_refused(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    train_student(spec("qdiffusion"), teacher, trajectories, Bits(4, 4), recipe, 0, checkpoint)
    assert read_metadata(stages_file(checkpoint))["stage"] == 3
    with pytest.raises(BenchError, match="checkpoint of another run; delete it"):
        train_student(spec("qdiffusion"), teacher, trajectories, Bits(4, 8), recipe, 0, checkpoint)


@pytest.mark.parametrize(("steps", "rows"), [(10, 10), (20, 20), (25, 13), (50, 17), (100, 20)])
def test_quest_has_twenty_rows_at_most(
    teacher: LatentDiffusion, recipe: Recipe, steps: int, rows: int
) -> None:
    assert recipe.post_training is not None
    sampler = dataclasses.replace(recipe.post_training, steps=steps)
    longer = dataclasses.replace(recipe, post_training=sampler)
    student = build_student(spec("quest"), teacher, Bits(4, 4), longer, 0)
    assert student.step is not None
    assert len(student.step) == rows
    times = DDIM.from_schedule(teacher.schedule, steps, 0.0).timesteps.tolist()
    assert student.step.timesteps[-1] == times[-1]  # the noisiest
    assert set(student.step.timesteps) <= set(times)


def test_tables_that_the_noise_error_cannot_use_are_refused_at_once(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    assert recipe.post_training is not None
    sampler = dataclasses.replace(recipe.post_training, steps=2)
    fewer = dataclasses.replace(recipe, post_training=sampler)
    method = spec("rtn", steps="by_timestep")
    with pytest.raises(BenchError, match="knows the 2 timesteps of its tables.* have 251, too"):
        train_student(method, teacher, trajectories, Bits(4, 4), fewer, 0)
    train_student(method, teacher, trajectories, Bits(4, 4), recipe, 0)


def test_a_recipe_without_a_sampler_is_refused(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    recipe = dataclasses.replace(recipe, post_training=None)
    with pytest.raises(BenchError, match="'rtn' is calibrated for a sampler, and recipe 'toy'"):
        train_student(spec("rtn"), teacher, trajectories, Bits(4, 4), recipe, 0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))

    def forward(self, x: Tensor, t: int) -> Tensor:
        return x + self.layers(x * (1 + t / 1000))


def test_any_module_can_be_post_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net()
    calls = [(torch.randn(64, 6), t) for t in (1, 501)]
    student = hqdm_bench.quantize(net, "qdiffusion", "w3a8", timesteps=(1, 501), policy="full")
    plain = hqdm_bench.quantize(net, "rtn", "w3a8", timesteps=(1, 501), policy="full")
    hqdm_bench.calibrate(plain, calls)
    path = tmp_path / "stages.safetensors"
    hqdm_bench.post_train(student, net, calls, Scale(0.02, 10), checkpoint=path)
    again = hqdm_bench.quantize(net, "qdiffusion", "w3a8", timesteps=(1, 501), policy="full")
    hqdm_bench.post_train(again, net, calls, Scale(0.02, 10), checkpoint=path)  # all is done

    def error(found: Student) -> float:
        with torch.no_grad():
            return sum(float((found(*call) - net(*call)).square().mean()) for call in calls)

    assert error(student) < error(plain)
    assert error(again) == error(student)


def test_stages_that_need_a_sampler_are_refused_for_a_module() -> None:
    net = Net()
    student = hqdm_bench.quantize(net, "ptqd", "w4a4", policy="full")
    with pytest.raises(BenchError, match="'ptqd' has a stage 'correct noise', which needs"):
        hqdm_bench.post_train(student, net, [(torch.randn(4, 6), 1)])
    with pytest.raises(BenchError, match="needs calibration calls"):
        hqdm_bench.post_train(student, net, [])


@pytest.mark.parametrize(
    ("wanted", "kept"), [(20, [1, 2, 3, 4, 5]), (2, [1, 5]), (3, [1, 3, 5]), (1, [1])]
)
def test_timesteps_are_chosen_evenly(wanted: int, kept: list[int]) -> None:
    net = Net()
    student = hqdm_bench.quantize(net, "rtn", "w4a4", timesteps=range(1, 6), policy="full")
    calls = [(torch.randn(2, 6), t) for t in range(1, 6) for _ in range(2)]
    work = Work(student, net, calls, StageLog(student), Scale(), 0)
    assert [t for _, t in work.chosen_calls(wanted)] == [t for t in kept for _ in range(2)]


def test_patterns_leave_layers_out() -> None:
    net = Net()
    student = hqdm_bench.quantize(net, "rtn", "w4a4", policy="full")
    work = Work(student, net, [], StageLog(student), Scale(), 0)
    assert work.layers(()) == ["layers.0", "layers.2"]
    assert work.layers(("*.2",)) == ["layers.0"]
