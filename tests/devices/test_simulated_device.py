"""Everything that runs on a GPU keeps its tensors together: same numbers on a second device."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hqdm_bench.catalogue import Bits, PostTraining, Scale, load_catalogue
from hqdm_bench.distill import generate, train_student
from hqdm_bench.evaluate.neighbours import precision_recall
from hqdm_bench.evaluate.outliers import record_outliers
from hqdm_bench.methods import load_student, save_student
from hqdm_bench.sample import draw_shard

CATALOGUE = load_catalogue(Path(__file__).parents[2])


@pytest.fixture
def protocol():
    entry = CATALOGUE.protocol("smoke-imagenet")
    return replace(entry, steps=4, eta=1.0, images=4, batch=2, shards=1, trace_images=2)


@pytest.fixture
def far_teacher(teacher, device):
    moved = copy.deepcopy(teacher).to(device)
    assert next(moved.unet.parameters()).device == device
    assert moved.scale_factor.device == device
    return moved


def test_the_device_notices_a_mixture(device):
    far = torch.ones(2).to(device)
    assert (far + 1).device == device
    assert (far + torch.tensor(1.0)).sum().item() == 4.0
    with pytest.raises(RuntimeError, match="mixes devices"):
        far + torch.ones(2)
    with pytest.raises(RuntimeError, match="mixes devices"):
        torch.ones(2)[torch.tensor([0]).to(device)]


def test_trajectories_do_not_depend_on_the_device(teacher, far_teacher, recipe):
    far = generate(far_teacher, recipe)
    assert far.eps.device.type == "cpu"
    assert torch.equal(far.eps, generate(teacher, recipe).eps)


def test_images_do_not_depend_on_the_device(teacher, far_teacher, protocol):
    far, close = (draw_shard(model, protocol, 0) for model in (far_teacher, teacher))
    assert (far.images == close.images).all()
    assert (far.latents == close.latents).all()


def test_outliers_do_not_depend_on_the_device(teacher, far_teacher, recipe):
    trajectories = generate(teacher, recipe)
    layers = ["input_blocks.1.0.in_layers.2", "middle_block.1.transformer_blocks.0.ff.net.2"]
    far, close = (
        record_outliers(model, trajectories, layers, [0, 3]) for model in (far_teacher, teacher)
    )
    assert all(torch.equal(far.tensors[key], value) for key, value in close.tensors.items())


def test_precision_and_recall_do_not_depend_on_the_device(device):
    random = torch.Generator().manual_seed(0)
    generated, real = (torch.randn(count, 3, generator=random) for count in (70, 50))
    generated[:5] = real[:5]  # ties at distance zero
    close = precision_recall(generated, real, block=32)
    assert 0 < close.precision < 1
    assert precision_recall(generated.to(device), real.to(device), block=32) == close


@pytest.mark.parametrize(
    ("name", "calibration"),
    [
        ("efficientdm", "single_batch"),
        ("hqdm", "per_step"),
        ("hqdm-plus", "per_step"),
        ("lsq", "per_step"),
        ("ptqd", "per_step"),
        ("tfmq", "per_step"),
        ("quest", "per_step"),
        ("dmq", "per_step"),
    ],
)
def test_students_do_not_depend_on_the_device(
    teacher, far_teacher, protocol, recipe, tmp_path, name, calibration
):
    """Calibrated, trained, checkpointed, saved, loaded and sampled there; equal to here.

    With one weight scale: the simulation cannot show two parameters that share a storage.
    """
    sampler = PostTraining(2, 0.0, 1.5, Scale(updates=1e-4, rates=10, data=0.004))
    recipe = replace(
        recipe, trajectories=1, steps=2, calibration=calibration, post_training=sampler
    )
    protocol = replace(protocol, steps=2, images=2)
    trajectories = generate(teacher, recipe)
    method = CATALOGUE.method(name)
    if calibration == "single_batch" or name.startswith("hqdm"):
        method = replace(method, options={**method.options, "weight_scale_updates": "once"})
    images, errors = [], []
    for model in (teacher, far_teacher):
        device = next(model.unet.parameters()).device
        where = tmp_path / device.type
        trained = train_student(
            method, model, trajectories, Bits(4, 4), recipe, 0, where / "checkpoint.safetensors"
        )
        errors.append(trained.noise_error)
        save_student(trained.student, where / "student.safetensors", {})
        student = load_student(where / "student.safetensors", teacher.unet, method).freeze()
        images.append(draw_shard(model.with_unet(student).to(device), protocol, 0).images)
    assert errors[0] == errors[1]
    assert (images[0] == images[1]).all()
    first, second = (path.read_bytes() for path in sorted(tmp_path.glob("*/student.safetensors")))
    assert first == second
