import dataclasses

import pytest
import torch
from torch import nn

from hqdm_bench.catalogue import ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_metadata, read_tensors, write_tensors
from hqdm_bench.models import (
    build_latent_diffusion,
    guide,
    load_latent_diffusion,
    save_latent_diffusion,
)

UNET = {
    "image_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 32,
    "attention_resolutions": [2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_heads": 1,
}
DDCONFIG = {
    "double_z": False,
    "z_channels": 3,
    "resolution": 32,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}
CONDITIONAL = ModelSpec(
    name="conditional",
    title="",
    paper_dataset="imagenet",
    source="embedded",
    unet=UNET | {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 16},
    first_stage={"kind": "vq", "embed_dim": 3, "n_embed": 32, "ddconfig": DDCONFIG},
    condition={"n_classes": 11, "embed_dim": 16},
    scale_factor=1.0,
    beta_start=0.0015,
    beta_end=0.0195,
)
UNCONDITIONAL = ModelSpec(
    name="unconditional",
    title="",
    paper_dataset="churches",
    source="embedded",
    unet=UNET,
    first_stage={"kind": "kl", "embed_dim": 3, "ddconfig": DDCONFIG | {"double_z": True}},
    condition=None,
    scale_factor=None,
    beta_start=0.0015,
    beta_end=0.0155,
)


@pytest.fixture(params=[CONDITIONAL, UNCONDITIONAL], ids=lambda spec: spec.name)
def spec(request):
    return request.param


def model_of(spec):
    """A model whose zero-initialised layers are redrawn, so that every input matters."""
    model = build_latent_diffusion(spec)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.unet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1, generator=generator)
    if spec.scale_factor is None:
        model.scale_factor.fill_(0.7)
    return model.eval()


@pytest.fixture
def conditional():
    return model_of(CONDITIONAL)


def latents(count=3):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(5))


class Recorder(nn.Module):
    """A UNet that remembers the batches it was given."""

    def __init__(self, unet):
        super().__init__()
        self.unet, self.calls = unet, []

    def forward(self, x, timesteps, context=None):
        self.calls.append((x, timesteps, context))
        return self.unet(x, timesteps, context)


@torch.no_grad()
def test_guidance_equals_two_separate_passes_in_one_batch(conditional):
    recorder = Recorder(conditional.unet)
    model = conditional.with_unet(recorder)
    x, labels, t = latents(), torch.tensor([0, 4, 9]), torch.full((3,), 751)
    guided = model.predict(x, 751, labels, guidance=1.5)
    null = conditional.unet(x, t, model.context(torch.full((3,), 10)))
    with_label = conditional.unet(x, t, model.context(labels))
    assert not torch.allclose(null, with_label, atol=1e-3)
    torch.testing.assert_close(guided, null + 1.5 * (with_label - null), atol=1e-5, rtol=1e-5)
    ((batch, timesteps, context),) = recorder.calls
    assert torch.equal(batch, torch.cat([x, x]))
    assert timesteps.tolist() == [751] * 6
    assert torch.equal(context[:3], model.context(torch.full((3,), 10)))
    assert torch.equal(context[3:], model.context(labels))


@torch.no_grad()
def test_guidance_combines_the_two_branches_to_the_last_bit(conditional):
    x, labels = latents(), torch.tensor([0, 4, 9])
    assert conditional.guides(labels, 1.5)
    both = conditional.predict_branches(x, 751, labels)
    null, with_label = both[:3], both[3:]
    alone = conditional.predict(x, 751, labels, guidance=1.0)
    torch.testing.assert_close(with_label, alone, atol=1e-5, rtol=1e-5)
    guided = conditional.predict(x, 751, labels, guidance=1.5)
    assert torch.equal(guided, null + 1.5 * (with_label - null))
    assert torch.equal(guided, guide(both.chunk(2), 1.5))


def test_an_unconditional_model_has_no_branches(conditional):
    model = model_of(UNCONDITIONAL)
    assert not model.guides(None, 3.0)
    assert not conditional.guides(torch.tensor([1]), 1.0)
    with pytest.raises(BenchError, match="is unconditional; it has one prediction"):
        model.predict_branches(latents(), 1, torch.tensor([1, 2, 3]))


@torch.no_grad()
def test_a_scale_of_one_skips_the_unconditional_pass(conditional):
    recorder = Recorder(conditional.unet)
    model = conditional.with_unet(recorder)
    x, labels = latents(), torch.tensor([1, 2, 3])
    plain = model.predict(x, 1, labels, guidance=1.0)
    assert [len(call[0]) for call in recorder.calls] == [3]
    expected = conditional.unet(x, torch.ones(3, dtype=torch.long), model.context(labels))
    assert torch.equal(plain, expected)


@torch.no_grad()
def test_an_unconditional_model_has_one_pass_at_any_scale():
    model = model_of(UNCONDITIONAL)
    recorder = Recorder(model.unet)
    guided = model.with_unet(recorder).predict(latents(), 11, None, guidance=3.0)
    assert torch.equal(guided, model.predict(latents(), 11, None, guidance=1.0))
    assert [len(call[0]) for call in recorder.calls] == [3]


def test_labels_must_match_the_kind_of_model(conditional):
    with pytest.raises(BenchError, match="class-conditional"):
        conditional.predict(latents(), 1, None, 1.5)
    with pytest.raises(BenchError, match="unconditional"):
        model_of(UNCONDITIONAL).predict(latents(), 1, torch.tensor([1, 2, 3]), 1.0)


def test_shapes_and_null_label(spec):
    model = build_latent_diffusion(spec)
    assert model.latent_shape == (3, 8, 8)
    assert model.null_label == (10 if spec.condition else None)
    images = torch.zeros(2, 3, 32, 32)
    assert model.encode(images).shape == (2, 3, 8, 8)
    assert model.decode(latents()).shape == (3, 3, 32, 32)


@torch.no_grad()
def test_latents_are_scaled_on_the_way_in_and_back_on_the_way_out():
    model = model_of(UNCONDITIONAL)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    inner = model.first_stage.encode(images)
    torch.testing.assert_close(model.encode(images), inner * 0.7)
    torch.testing.assert_close(
        model.decode(model.encode(images)), model.first_stage.decode(inner), atol=1e-5, rtol=1e-4
    )


def test_another_unet_shares_everything_else(conditional):
    other = conditional.with_unet(nn.Identity())
    assert other.first_stage is conditional.first_stage
    assert other.embedder is conditional.embedder
    assert other.scale_factor is conditional.scale_factor
    assert isinstance(other.unet, nn.Identity)
    assert not isinstance(conditional.unet, nn.Identity)
    assert other.training == conditional.training


def test_initial_weights_depend_on_the_seed_only(spec):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_latent_diffusion(spec, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = build_latent_diffusion(spec, seed=3).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = build_latent_diffusion(spec, seed=4).state_dict()
    assert not torch.equal(first["unet.time_embed.0.weight"], other["unet.time_embed.0.weight"])


@torch.no_grad()
def test_a_file_gives_the_model_back(spec, tmp_path):
    model = model_of(spec)
    path = tmp_path / "model.safetensors"
    save_latent_diffusion(model, path, {"recipe": {"iterations": 3}})
    assert read_metadata(path) == {"recipe": {"iterations": 3}}
    loaded = load_latent_diffusion(spec, path)
    expected = model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    labels = torch.tensor([1, 2, 3]) if spec.condition else None
    assert torch.equal(
        loaded.predict(latents(), 51, labels, 1.5), model.predict(latents(), 51, labels, 1.5)
    )
    assert torch.equal(loaded.decode(latents()), model.decode(latents()))


def test_half_precision_halves_the_file_and_loads_as_float32(spec, tmp_path):
    model = model_of(spec)
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    save_latent_diffusion(model, full, {})
    save_latent_diffusion(model, half, {}, dtype=torch.float16)
    assert half.stat().st_size < 0.55 * full.stat().st_size
    loaded = load_latent_diffusion(spec, half).state_dict()
    for key, value in model.state_dict().items():
        assert loaded[key].dtype == torch.float32
        rounded = value if key == "scale_factor" else value.half().float()
        assert torch.equal(loaded[key], rounded)


def test_names_in_a_file_are_those_of_the_published_checkpoints(tmp_path):
    path = tmp_path / "model.safetensors"
    save_latent_diffusion(build_latent_diffusion(CONDITIONAL), path, {})
    tensors, _ = read_tensors(path)
    heads = {key.split(".")[0] for key in tensors}
    assert heads == {"model", "first_stage_model", "cond_stage_model", "scale_factor"}
    assert "model.diffusion_model.input_blocks.1.0.in_layers.2.weight" in tensors
    assert tensors["cond_stage_model.embedding.weight"].shape == (11, 16)
    assert tensors["first_stage_model.quantize.embedding.weight"].shape == (32, 3)


def damaged(path, change):
    tensors, metadata = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors, metadata)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda tensors: tensors.pop("model.diffusion_model.out.2.bias"),
            r"1 missing key\(s\) \(model.diffusion_model.out.2.bias\); 0 unexpected",
        ),
        (
            lambda tensors: tensors.update({"model_ema.decay": torch.ones(1)}),
            r"0 missing key\(s\); 1 unexpected key\(s\) \(model_ema.decay\)",
        ),
        (
            lambda tensors: tensors.update({"model.diffusion_model.out.2.bias": torch.ones(4)}),
            r"out.2.bias is \(4,\), the catalogue's is \(3,\)",
        ),
        (
            lambda tensors: tensors.update({"alphas_cumprod": torch.linspace(1, 0, 1000)}),
            "noise schedule",
        ),
        (lambda tensors: tensors.update({"scale_factor": torch.tensor(0.18215)}), "0.18"),
    ],
    ids=["missing", "unexpected", "shape", "schedule", "scale"],
)
def test_another_file_is_refused(tmp_path, change, words):
    path = tmp_path / "model.safetensors"
    save_latent_diffusion(build_latent_diffusion(CONDITIONAL), path, {})
    damaged(path, change)
    with pytest.raises(BenchError, match=words):
        load_latent_diffusion(CONDITIONAL, path)


def test_a_scale_factor_must_come_from_somewhere(tmp_path):
    path = tmp_path / "model.safetensors"
    save_latent_diffusion(model_of(UNCONDITIONAL), path, {})
    assert load_latent_diffusion(UNCONDITIONAL, path).scale_factor.item() == pytest.approx(0.7)
    damaged(path, lambda tensors: tensors.pop("scale_factor"))
    with pytest.raises(BenchError, match="scale_factor"):
        load_latent_diffusion(UNCONDITIONAL, path)
    given = dataclasses.replace(UNCONDITIONAL, scale_factor=0.25)
    assert load_latent_diffusion(given, path).scale_factor.item() == 0.25


def test_the_schedule_of_a_published_checkpoint_is_accepted(tmp_path):
    path = tmp_path / "model.safetensors"
    model = build_latent_diffusion(CONDITIONAL)
    save_latent_diffusion(model, path, {})
    extra = {
        "alphas_cumprod": model.schedule.alphas_cumprod.float(),
        "betas": model.schedule.betas.float(),
        "lvlb_weights": torch.zeros(1000),
        "first_stage_model.loss.logvar": torch.zeros(()),
    }
    damaged(path, lambda tensors: tensors.update(extra))
    assert load_latent_diffusion(CONDITIONAL, path).schedule.alphas_cumprod.device.type == "cpu"
