"""Stand-in checkpoints: the format of the published ones, weights that make a network react."""

import copy
import dataclasses
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch

from hqdm_bench.artefacts.conversion import averaged_name
from hqdm_bench.catalogue import load_catalogue
from hqdm_bench.models import DDIM
from hqdm_bench.models.checkpoint import convert_checkpoint, load_latent_diffusion
from hqdm_bench.models.stand_in import stand_in_state_dict, write_stand_in_checkpoint

MODELS = load_catalogue(Path(__file__).parents[2]).models
IMAGENET = MODELS["mini-imagenet"]
CHURCHES = dataclasses.replace(MODELS["mini-churches"], ema=True)
NAMES = {
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    path = tmp_path_factory.mktemp("stand-in") / "model.ckpt"
    write_stand_in_checkpoint(CHURCHES, path, seed=0)
    return path


def test_it_names_what_published_files_name(bare):
    found = set(torch.serialization.get_unsafe_globals_in_checkpoint(bare))
    assert {name.replace("numpy.core", "numpy._core") for name in found} == NAMES
    assert not any(name.startswith("pytorch_lightning") for name in sys.modules)
    with zipfile.ZipFile(bare) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"archive"}


def test_equal_arguments_give_equal_bytes(tmp_path, bare):
    again = tmp_path / "other name.ckpt"
    write_stand_in_checkpoint(CHURCHES, again, seed=0)
    assert again.read_bytes() == bare.read_bytes()
    state, other = stand_in_state_dict(CHURCHES, 0), stand_in_state_dict(CHURCHES, 1)
    drawn = [key for key in state if key.startswith(("model.", "first_stage_model."))]
    assert all((state[key] != other[key]).all() for key in drawn)


def test_an_archive_holds_one_checkpoint(tmp_path, bare):
    path = tmp_path / "model.zip"
    write_stand_in_checkpoint(CHURCHES, path, seed=0, style="zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["model.ckpt"]
        assert archive.read("model.ckpt") == bare.read_bytes()
    assert [each.name for each in tmp_path.iterdir()] == ["model.zip"]


def test_the_old_format_is_no_zip_archive(tmp_path):
    path = tmp_path / "model.ckpt"
    write_stand_in_checkpoint(IMAGENET, path, seed=0, legacy=True)
    assert path.read_bytes()[:2] == b"\x80\x02"
    target = tmp_path / "teacher.safetensors"
    convert_checkpoint(IMAGENET, path, target)
    weights = load_latent_diffusion(IMAGENET, target).unet.state_dict()
    state = stand_in_state_dict(IMAGENET, 0)
    assert all(
        torch.equal(value, state[f"model.diffusion_model.{key}"]) for key, value in weights.items()
    )


def test_an_installed_lightning_is_left_as_it_was(tmp_path, monkeypatch):
    installed = types.ModuleType("pytorch_lightning")
    monkeypatch.setitem(sys.modules, "pytorch_lightning", installed)
    write_stand_in_checkpoint(IMAGENET, tmp_path / "model.ckpt", seed=0)
    assert sys.modules["pytorch_lightning"] is installed
    assert "pytorch_lightning.callbacks" not in sys.modules


def test_averages_differ_from_raw_weights_but_not_much():
    state = stand_in_state_dict(CHURCHES, 0)
    large = [key for key in state if key.startswith("model.") and state[key].numel() > 100]
    for key in large:
        average = state[averaged_name(key)]
        spread = (average - average.mean()).abs().max()
        assert 0.2 * spread < (state[key] - average).abs().max() < 0.4 * spread


@pytest.fixture(scope="module", params=[IMAGENET, CHURCHES], ids=lambda spec: spec.name)
def model(request, tmp_path_factory):
    """A stand-in after conversion."""
    folder = tmp_path_factory.mktemp("converted")
    source, target = folder / "model.ckpt", folder / "teacher.safetensors"
    write_stand_in_checkpoint(request.param, source, seed=0)
    convert_checkpoint(request.param, source, target)
    return load_latent_diffusion(request.param, target)


def inputs(model):
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    return x, None if model.embedder is None else torch.tensor([1, 2])


@torch.no_grad()
def test_twenty_steps_give_finite_images_that_differ(model):
    x, labels = inputs(model)
    ddim = DDIM.from_schedule(model.schedule, 20, eta=0.0)
    for index in reversed(range(20)):
        x = ddim.step(x, model.predict(x, int(ddim.timesteps[index]), labels, 3.0), index)
    images = model.decode(x)
    assert images.isfinite().all()
    assert images.abs().max() < 10
    assert (images[0] - images[1]).abs().mean() > 0.05


def test_every_parameter_and_input_of_the_network_counts(model):
    x, labels = inputs(model)
    unet = copy.deepcopy(model.unet).requires_grad_(True)
    unet(x, torch.tensor([1, 951]), model.context(labels)).square().sum().backward()
    silent = {key for key, value in unet.named_parameters() if not value.grad.abs().max() > 1e-9}
    # One token makes the softmax of cross-attention 1, whatever the query and the key.
    assert all(".norm2." in key or ".attn2.to_q." in key or ".attn2.to_k." in key for key in silent)
    with torch.no_grad():
        early, late = (unet(x, torch.full((2,), t), model.context(labels)) for t in (1, 951))
        assert (early - late).abs().max() > 1e-3
        if labels is not None:
            other = unet(x, torch.full((2,), 1), model.context(labels + 1))
            assert (early - other).abs().max() > 1e-3
