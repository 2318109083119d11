import gzip
import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from torch import nn
from torch.nn import functional

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models import KLFirstStage, VQFirstStage, build_first_stage

DATA = Path(__file__).parents[1] / "data" / "ldm"
VQ_F4 = {
    "double_z": False,
    "z_channels": 3,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
KL_F8 = VQ_F4 | {"double_z": True, "z_channels": 4, "ch_mult": [1, 2, 4, 4]}
MINI = VQ_F4 | {"resolution": 32, "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1}


def spread(module, seed=0):
    """Weights that leave no branch without effect, norms included."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 4
        nn.init.normal_(parameter, std=fan**-0.5, generator=generator)
    return module.double().eval()


def images(count=2, size=32, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator, dtype=torch.float64) * 2 - 1


def diffusers_config(ddconfig):
    levels = len(ddconfig["ch_mult"])
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [ddconfig["ch"] * factor for factor in ddconfig["ch_mult"]],
        "layers_per_block": ddconfig["num_res_blocks"],
        "latent_channels": ddconfig["z_channels"],
        "norm_num_groups": 32,
    }


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("cin256", {"kind": "vq", "embed_dim": 3, "n_embed": 8192, "ddconfig": VQ_F4}),
        ("lsun_beds256", {"kind": "vq", "embed_dim": 3, "n_embed": 8192, "ddconfig": VQ_F4}),
        ("lsun_churches256", {"kind": "kl", "embed_dim": 4, "ddconfig": KL_F8}),
    ],
)
def test_keys_and_shapes_of_the_full_models(name, stage):
    facts = json.loads(gzip.decompress((DATA / f"keys_{name}.json.gz").read_bytes()))
    with torch.device("meta"):
        built = build_first_stage(stage)
    prefix = "first_stage_model."
    expected = {
        key.removeprefix(prefix): shape
        for key, shape in facts["keys"].items()
        if key.startswith(prefix)
    }
    assert {key: list(value.shape) for key, value in built.state_dict().items()} == expected
    count = sum(parameter.numel() for parameter in built.parameters())
    assert count == facts["parameter_counts"]["first_stage_model"]


@torch.no_grad()
def test_kl_equals_diffusers():
    ddconfig = MINI | {"double_z": True, "z_channels": 4, "ch_mult": [1, 2, 2]}
    ours = spread(KLFirstStage(4, ddconfig))
    theirs = AutoencoderKL(**diffusers_config(ddconfig)).double().eval()
    theirs.load_state_dict(convert_ldm_vae_checkpoint(ours.state_dict(), theirs.config))
    x = images()
    posterior = theirs.encode(x).latent_dist
    mean, log_variance = ours.moments(x)
    torch.testing.assert_close(mean, posterior.mean, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(log_variance, posterior.logvar, atol=1e-10, rtol=1e-10)
    assert torch.equal(ours.encode(x), mean)
    torch.testing.assert_close(ours.decode(mean), theirs.decode(mean).sample, atol=1e-9, rtol=0)


@torch.no_grad()
def test_vq_equals_diffusers():
    ours = spread(VQFirstStage(3, 64, MINI))
    config = diffusers_config(MINI) | {"num_vq_embeddings": 64, "vq_embed_dim": 3}
    theirs = VQModel(**config).double().eval()
    state = convert_ldm_vae_checkpoint(ours.state_dict(), theirs.config)
    state["quantize.embedding.weight"] = ours.quantize.embedding.weight
    theirs.load_state_dict(state)
    x = images()
    z = ours.encode(x)
    torch.testing.assert_close(z, theirs.encode(x).latents, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(ours.decode(z), theirs.decode(z).sample, atol=1e-9, rtol=0)


def test_attention_at_a_resolution_adds_its_layers_there():
    ddconfig = MINI | {"attn_resolutions": [16]}
    extra = (
        VQFirstStage(3, 8, ddconfig).state_dict().keys()
        - VQFirstStage(3, 8, MINI).state_dict().keys()
    )
    parts = {".".join(key.split(".")[:5]) for key in extra}
    assert parts == {"encoder.down.1.attn.0", "decoder.up.1.attn.0", "decoder.up.1.attn.1"}
    assert VQFirstStage(3, 8, ddconfig).encode(images().float()).shape == (2, 3, 8, 8)


def test_downsampling_pads_on_the_right_and_below_only():
    layer = VQFirstStage(3, 8, MINI).encoder.down[0].downsample
    x = torch.randn(1, 32, 8, 8)
    padded = functional.pad(x, (0, 1, 0, 1))
    expected = functional.conv2d(padded, layer.conv.weight, layer.conv.bias, stride=2)
    assert torch.equal(layer(x), expected)
    assert layer(x).shape == (1, 32, 4, 4)


def test_every_latent_goes_to_its_nearest_code():
    stage = VQFirstStage(3, 500, MINI)
    nn.init.normal_(stage.quantize.embedding.weight)
    z = torch.randn(5, 3, 32, 32)  # 5120 vectors, more than are looked up at once
    found = stage.quantize(z)
    codes = stage.quantize.embedding.weight
    rows = z.permute(0, 2, 3, 1).reshape(-1, 3).double()
    distances = (rows[:, None] - codes.double()).square().sum(-1)
    chosen = distances.gather(1, found.indices.reshape(-1, 1))[:, 0]
    torch.testing.assert_close(chosen, distances.amin(dim=1), atol=1e-5, rtol=0)
    assert torch.equal(found.z, codes[found.indices].permute(0, 3, 1, 2))
    assert torch.equal(stage.quantize(found.z).indices, found.indices)


@torch.no_grad()
def test_vq_decode_quantizes_first():
    stage = spread(VQFirstStage(3, 64, MINI))
    z = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    codes = stage.quantize(z).z
    nudged = codes + 1e-4
    assert torch.equal(stage.decode(z), stage.decode_codes(codes))
    assert torch.equal(stage.decode(nudged), stage.decode(z))
    assert not torch.equal(stage.decode_codes(nudged), stage.decode(z))


def test_gradients_pass_straight_through_and_losses_pull_both_ways():
    stage = VQFirstStage(3, 16, MINI)
    codes = stage.quantize.embedding.weight
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    found = stage.quantize(z)
    pull = torch.randn_like(z)
    (gradient,) = torch.autograd.grad((found.z * pull).sum(), z, retain_graph=True)
    assert torch.equal(gradient, pull)
    assert torch.autograd.grad(found.z.sum(), codes, allow_unused=True, retain_graph=True) == (
        None,
    )
    for loss, kept_out in ((found.codebook_loss, z), (found.commitment_loss, codes)):
        gradients = torch.autograd.grad(loss, kept_out, allow_unused=True, retain_graph=True)
        assert gradients == (None,)
    difference = z.detach() - codes.detach()[found.indices].permute(0, 3, 1, 2)
    (commitment,) = torch.autograd.grad(found.commitment_loss, z)
    torch.testing.assert_close(commitment, 2 * difference / z.numel())
    (codebook,) = torch.autograd.grad(found.codebook_loss, codes)
    expected = torch.zeros_like(codes)
    expected.index_add_(
        0, found.indices.flatten(), -2 * difference.permute(0, 2, 3, 1).reshape(-1, 3) / z.numel()
    )
    torch.testing.assert_close(codebook, expected)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"kind": "vae"}, "first_stage.kind is 'vae'; allowed: kl, vq"),
        ({"kind": "vq", "embed_dim": 3, "ddconfig": MINI}, "lacks the key.s. n_embed"),
        ({"kind": "kl", "embed_dim": 3, "ddconfig": MINI}, "double_z is false"),
        (
            {"kind": "vq", "embed_dim": 3, "n_embed": 8, "ddconfig": MINI | {"double_z": True}},
            "double_z is true",
        ),
        (
            {"kind": "vq", "embed_dim": 3, "n_embed": 8, "ddconfig": MINI | {"chh": 1}},
            "unknown key 'ddconfig.chh'",
        ),
        (
            {"kind": "vq", "embed_dim": 3, "n_embed": 8, "ddconfig": MINI | {"ch": 16}},
            "16 channels",
        ),
    ],
)
def test_refused_structures(stage, words):
    with pytest.raises(BenchError, match=words):
        build_first_stage(stage)
