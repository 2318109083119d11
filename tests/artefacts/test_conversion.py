"""From a checkpoint's state dict to the weights a model is sampled with."""

import dataclasses
import hashlib
import re

import pytest
import torch

from hqdm_bench.artefacts.conversion import averaged_name, sampling_weights
from hqdm_bench.catalogue import ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_metadata, read_tensors
from hqdm_bench.models.checkpoint import (
    checkpoint_shapes,
    convert_checkpoint,
    load_latent_diffusion,
    weight_shapes,
)
from hqdm_bench.models.stand_in import stand_in_state_dict, write_stand_in_checkpoint

DDCONFIG = {
    "double_z": False,
    "z_channels": 3,
    "resolution": 16,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}
UNET = {
    "image_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 32,
    "attention_resolutions": [1],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_heads": 1,
}
IMAGENET = ModelSpec(
    name="tiny-imagenet",
    title="",
    paper_dataset="imagenet",
    source="checkpoint",
    unet=UNET | {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 16},
    first_stage={"kind": "vq", "embed_dim": 3, "n_embed": 32, "ddconfig": DDCONFIG},
    condition={"n_classes": 5, "embed_dim": 16},
    scale_factor=1.0,
    beta_start=0.0015,
    beta_end=0.0195,
)
CHURCHES = dataclasses.replace(
    IMAGENET,
    name="tiny-churches",
    unet=UNET | {"use_scale_shift_norm": True, "resblock_updown": True},
    first_stage={"kind": "kl", "embed_dim": 3, "ddconfig": DDCONFIG | {"double_z": True}},
    condition=None,
    scale_factor=None,
    beta_end=0.0155,
    ema=True,
)
FIRST = "model.diffusion_model.time_embed.0.weight"
SECOND = "model.diffusion_model.time_embed.0.bias"


def changed(state, path, change):
    """A checkpoint that differs from a whole one."""
    state = dict(state)
    change(state)
    torch.save({"state_dict": state, "global_step": 9}, path)
    return path


@pytest.fixture(scope="module")
def imagenet():
    return stand_in_state_dict(IMAGENET, 0)


@pytest.fixture(scope="module")
def churches():
    return stand_in_state_dict(CHURCHES, 0)


@pytest.mark.parametrize("spec", [IMAGENET, CHURCHES], ids=lambda spec: spec.name)
def test_a_converted_checkpoint_loads_strictly(tmp_path, spec):
    source, target = tmp_path / "model.zip", tmp_path / "deep" / "teacher.safetensors"
    write_stand_in_checkpoint(spec, source, seed=3, style="zip")
    done = convert_checkpoint(spec, source, target)
    assert sorted(path.name for path in target.parent.iterdir()) == ["teacher.safetensors"]
    state = stand_in_state_dict(spec, 3)
    model = load_latent_diffusion(spec, target)
    for key, value in model.unet.state_dict().items():
        name = f"model.diffusion_model.{key}"
        assert torch.equal(value, state[averaged_name(name) if spec.ema else name])
    for key, value in model.first_stage.state_dict().items():
        assert torch.equal(value, state[f"first_stage_model.{key}"])
    if spec.condition:
        assert torch.equal(
            model.embedder.embedding.weight, state["cond_stage_model.embedding.weight"]
        )
    assert model.scale_factor.item() == (0.5 if spec.ema else 1.0)
    assert done.tensors == len(weight_shapes(spec))
    assert done.parameters["unet"] == sum(value.numel() for value in model.unet.parameters())


def test_the_header_says_what_the_file_was_made_of(tmp_path):
    source, target = tmp_path / "model.ckpt", tmp_path / "teacher.safetensors"
    write_stand_in_checkpoint(CHURCHES, source, seed=0)
    done = convert_checkpoint(CHURCHES, source, target)
    assert read_metadata(target) == {
        "model": "tiny-churches",
        "source": "model.ckpt",
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "ema": True,
        "tensors": done.tensors,
        "parameters": done.parameters,
        "global_step": 2,
        "epoch": 1,
        "lightning": "1.4.2",
    }
    first = target.read_bytes()
    convert_checkpoint(CHURCHES, source, target)
    assert target.read_bytes() == first


def test_without_ema_the_raw_weights_are_taken_and_differ_everywhere(tmp_path, churches):
    source = changed(churches, tmp_path / "model.ckpt", lambda state: None)
    raw = dataclasses.replace(CHURCHES, ema=False)
    for spec in (CHURCHES, raw):
        done = convert_checkpoint(spec, source, tmp_path / f"{spec.ema}.safetensors")
        assert done.ema is spec.ema
    averaged, _ = read_tensors(tmp_path / "True.safetensors")
    plain, _ = read_tensors(tmp_path / "False.safetensors")
    assert averaged.keys() == plain.keys() == weight_shapes(CHURCHES).keys() | {"scale_factor"}
    for key, value in averaged.items():
        assert torch.equal(value, plain[key]) is not key.startswith("model.")
        assert key.startswith("model.") is bool((value != plain[key]).all())


def test_no_two_parameters_share_an_average():
    names = [name for name in weight_shapes(CHURCHES) if name.startswith("model.")]
    assert len({averaged_name(name) for name in names}) == len(names)
    assert averaged_name(FIRST) == "model_ema.diffusion_modeltime_embed0weight"


def test_what_older_files_may_carry_is_dropped(tmp_path, churches):
    extra = {
        "lvlb_weights": torch.zeros(1000),
        "first_stage_model.loss.logvar": torch.zeros(()),
        "first_stage_model.loss.discriminator.main.0.weight": torch.zeros(2, 2),
        "ddim_sigmas": torch.zeros(200),
    }
    source = changed(churches, tmp_path / "model.ckpt", lambda state: state.update(extra))
    convert_checkpoint(CHURCHES, source, tmp_path / "teacher.safetensors")
    tensors, _ = read_tensors(tmp_path / "teacher.safetensors")
    assert tensors.keys() == weight_shapes(CHURCHES).keys() | {"scale_factor"}


def test_averages_without_their_counters_are_enough(tmp_path, churches):
    def strip(state):
        del state["model_ema.decay"], state["model_ema.num_updates"]

    source = changed(churches, tmp_path / "model.ckpt", strip)
    assert convert_checkpoint(CHURCHES, source, tmp_path / "teacher.safetensors").ema


def test_half_precision_is_kept_in_the_file_and_loads_as_float32(tmp_path, imagenet):
    def halve(state):
        state.update({key: value.half() for key, value in state.items() if "model" in key})

    source = changed(imagenet, tmp_path / "model.ckpt", halve)
    target = tmp_path / "teacher.safetensors"
    convert_checkpoint(IMAGENET, source, target)
    assert read_tensors(target)[0][FIRST].dtype == torch.float16
    assert load_latent_diffusion(IMAGENET, target).unet.time_embed[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop(averaged_name(FIRST)), f"1 missing key(s) ({averaged_name(FIRST)})"),
        (
            lambda s: [s.pop(key) for key in list(s) if key.startswith("model_ema.diffusion")],
            ", and ",
        ),
        (
            lambda s: [s.pop(key) for key in list(s) if key.startswith("model_ema.")],
            "holds no averaged weights (model_ema.*)",
        ),
        (lambda s: s.pop(FIRST), f"1 missing key(s) ({FIRST}); 0 unexpected"),
        (
            lambda s: s.update(logvar=torch.zeros(1)),
            "0 missing key(s); 1 unexpected key(s) (logvar)",
        ),
        (
            lambda s: s.update({"model_ema.other": torch.zeros(1)}),
            "unexpected key(s) (model_ema.other)",
        ),
        (
            lambda s: s.update({averaged_name(SECOND): torch.zeros(3)}),
            f"{averaged_name(SECOND)} is (3,), the catalogue's is (128,)",
        ),
        (lambda s: s.update({FIRST: torch.zeros(3)}), f"{FIRST} is (3,)"),
        (lambda s: s.pop("betas"), "holds no noise schedule: betas is missing"),
        (lambda s: s["betas"].mul_(1.01), "its noise schedule (betas) is not the catalogue's"),
        (lambda s: s["alphas_cumprod"].mul_(1.01), "noise schedule (alphas_cumprod) is not"),
        (lambda s: s.pop("scale_factor"), "holds no scale_factor"),
        (lambda s: s["scale_factor"].fill_(float("nan")), "not a positive number"),
        (lambda s: s["scale_factor"].fill_(0), "scale_factor is 0.0, not a positive number"),
        (
            lambda s: s.update({averaged_name(SECOND): torch.zeros(128, dtype=torch.int64)}),
            f"{SECOND} holds torch.int64",
        ),
        (
            lambda s: s.update({averaged_name(SECOND): torch.full((128,), float("inf"))}),
            f"{SECOND} holds infinite or undefined values",
        ),
    ],
)
def test_a_checkpoint_that_differs_is_refused_and_nothing_is_written(
    tmp_path, churches, change, words
):
    own = {key: value.clone() for key, value in churches.items()}
    source, target = changed(own, tmp_path / "model.ckpt", change), tmp_path / "teacher.safetensors"
    with pytest.raises(BenchError, match=re.escape(words)) as refusal:
        convert_checkpoint(CHURCHES, source, target)
    assert str(source) in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]


def test_long_lists_show_five_names_and_the_count(churches):
    shapes = weight_shapes(CHURCHES)
    state = {key: value for key, value in churches.items() if not key.startswith("first_stage")}
    missing = sum(key.startswith("first_stage") for key in shapes)
    with pytest.raises(BenchError) as refusal:
        sampling_weights(state, shapes, ema=True, where="file")
    text = str(refusal.value)
    assert f"{missing} missing key(s) (" in text
    assert f", and {missing - 5} more)" in text
    assert text.count("first_stage_model.") == 5


def test_checkpoints_of_other_models_are_refused(tmp_path, imagenet, churches):
    source = changed(imagenet, tmp_path / "imagenet.ckpt", lambda state: None)
    with pytest.raises(BenchError, match="averaged weights"):
        convert_checkpoint(CHURCHES, source, tmp_path / "teacher.safetensors")
    source = changed(churches, tmp_path / "churches.ckpt", lambda state: None)
    with pytest.raises(BenchError, match="missing key"):
        convert_checkpoint(IMAGENET, source, tmp_path / "teacher.safetensors")
    narrow = dataclasses.replace(IMAGENET, beta_end=0.0155)
    source = changed(imagenet, tmp_path / "imagenet.ckpt", lambda state: None)
    with pytest.raises(BenchError, match="noise schedule"):
        convert_checkpoint(narrow, source, tmp_path / "teacher.safetensors")


def test_the_raw_weights_of_a_file_with_foreign_averages_are_refused(churches):
    state = {**churches, "model_ema.diffusion_modelother": torch.zeros(1)}
    with pytest.raises(BenchError, match="model_ema.diffusion_modelother"):
        sampling_weights(state, weight_shapes(CHURCHES), ema=False, where="file")


@pytest.mark.parametrize("spec", [IMAGENET, CHURCHES], ids=lambda spec: spec.name)
def test_stand_ins_hold_what_a_checkpoint_holds(spec):
    found = {key: value.shape for key, value in stand_in_state_dict(spec, 0).items()}
    assert found == checkpoint_shapes(spec)
