"""Outlier channels: the same function to the last bit, and inputs that have grown."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from hqdm_bench.catalogue import Bits, MethodSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods import build_student
from hqdm_bench.models import (
    UNet,
    add_outlier_channels,
    load_latent_diffusion,
    save_latent_diffusion,
)
from hqdm_bench.models.outlier_channels import RaisedSiLU

TRANSFORMER = {
    "image_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 64,
    "attention_resolutions": [2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_heads": 2,
    "use_spatial_transformer": True,
    "transformer_depth": 2,
    "context_dim": 16,
}
PLAIN = {
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "attention_resolutions": [2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_heads": 2,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
BLOCK = "input_blocks.3.1.transformer_blocks.1"
# A consumer of every kind, the module that makes its input, and its channels that are raised.
READERS = [
    (f"{BLOCK}.attn1.to_q", f"{BLOCK}.norm1", 4),
    (f"{BLOCK}.attn1.to_v", f"{BLOCK}.norm1", 4),
    (f"{BLOCK}.attn2.to_q", f"{BLOCK}.norm2", 4),
    (f"{BLOCK}.ff.net.0.proj", f"{BLOCK}.norm3", 4),
    (f"{BLOCK}.ff.net.2", f"{BLOCK}.ff.net.0", 15),
    ("middle_block.1.proj_in", "middle_block.1.norm", 4),
    ("input_blocks.3.0.in_layers.2", "input_blocks.3.0.in_layers.1", 2),
    ("output_blocks.0.0.out_layers.3", "output_blocks.0.0.out_layers.1", 4),
]
UNTOUCHED = ["time_embed.2", f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn2.to_out.0", "out.2"]


def network(params):
    """A UNet in which everything reacts; norms have gains and biases of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet(**params).eval().requires_grad_(False)
        for parameter in unet.parameters():
            if parameter.dim() == 1 or not parameter.any():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return unet


@pytest.fixture(scope="module")
def transformer():
    return network(TRANSFORMER)


def inputs(unet):
    random = torch.Generator().manual_seed(2)
    width = unet.config.context_dim
    context = None if width is None else torch.randn(2, 3, width, generator=random)
    x = torch.randn(2, unet.config.in_channels, 8, 8, generator=random)
    return x, torch.tensor([501, 501]), context


def channel_maxima(unet, names):
    """Largest absolute input of every channel, by layer."""
    found, hooks = {}, []
    for name in names:
        layer = unet.get_submodule(name)
        axis = 1 if isinstance(layer, nn.Conv2d) else -1

        def record(_, given, name=name, axis=axis):
            found[name] = given[0].abs().movedim(axis, 0).flatten(1).amax(1)

        hooks.append(layer.register_forward_pre_hook(record))
    unet(*inputs(unet))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("params", [TRANSFORMER, PLAIN], ids=["transformer", "plain"])
@pytest.mark.parametrize("factor", [1, 2, 4, 16])
def test_powers_of_two_change_no_bit(params, factor):
    unet = network(params)
    x, t, context = inputs(unet)
    expected = unet(x, t, context)
    changed = add_outlier_channels(unet, factor, 0.03, 0)
    assert torch.equal(changed(x, t, context), expected)
    images = x.to(memory_format=torch.channels_last)
    assert torch.equal(changed(images, t, context), unet(images, t, context))
    assert torch.equal(unet(x, t, context), expected)  # the given network is as it was


@pytest.mark.parametrize("factor", [3.0, 0.7, 10.0])
def test_other_factors_round(transformer, factor):
    expected = transformer(*inputs(transformer))
    found = add_outlier_channels(transformer, factor, 0.03, 0)(*inputs(transformer))
    assert not torch.equal(found, expected)
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_the_chosen_channels_of_every_consumer_grow_by_the_factor(transformer):
    names = [name for name, _, _ in READERS]
    before = channel_maxima(transformer, names + UNTOUCHED)
    after = channel_maxima(add_outlier_channels(transformer, 8, 0.03, 0), names + UNTOUCHED)
    for name, _, count in READERS:
        ratio = after[name] / before[name]
        assert sorted(set(ratio.tolist())) == [1, 8], name
        assert (ratio == 8).sum() == count, name
    for name in UNTOUCHED:
        assert torch.equal(after[name], before[name]), name


def test_the_weights_that_read_them_shrink_by_the_factor(transformer):
    changed = add_outlier_channels(transformer, 8, 0.03, 0)
    raised = channel_maxima(changed, [name for name, _, _ in READERS])
    plain = channel_maxima(transformer, raised)
    for name, maxima in raised.items():
        old, new = transformer.get_submodule(name).weight, changed.get_submodule(name).weight
        if name.endswith("ff.net.0.proj"):  # its value rows are raised themselves
            old, new = old[len(old) // 2 :], new[len(new) // 2 :]
        divisor = (maxima / plain[name]).view(-1, *[1] * (old.dim() - 2))
        assert torch.equal(new * divisor, old), name


def test_every_kind_of_site_is_there(transformer):
    changed = add_outlier_channels(transformer, 4, 0.03, 0)
    before, after = transformer.state_dict(), changed.state_dict()
    sites = {name for _, name, _ in READERS}
    grown = {name for name, module in changed.named_modules() if isinstance(module, RaisedSiLU)}
    blocks = [name for name, _ in transformer.named_modules() if name.endswith("_layers.1")]
    expected = {name for name in blocks if "emb_layers" not in name}
    assert grown == expected
    assert {name for name in sites if name.endswith("_layers.1")} <= grown
    assert set(after) - set(before) == {f"{name}.gain" for name in grown}
    assert set(before) <= set(after)
    assert all(after[key].shape == before[key].shape for key in before)


def test_channels_depend_on_seed_and_place_not_on_the_factor(transformer):
    def chosen(factor, seed):
        changed = add_outlier_channels(transformer, factor, 0.03, seed).state_dict()
        return {
            key: tuple((changed[key] != 1).flatten().nonzero().flatten().tolist())
            for key in changed
            if key.endswith("gain")
        }

    first = chosen(2, 0)
    assert chosen(16, 0) == first
    assert chosen(2, 1) != first
    assert len(set(first.values())) > len(first) / 2
    assert {len(channels) for channels in first.values()} == {2, 4, 6, 8}


def test_at_least_one_channel(transformer):
    changed = add_outlier_channels(transformer, 2, 1e-6, 0)
    gains = [module.gain for module in changed.modules() if isinstance(module, RaisedSiLU)]
    assert all((gain == 2).sum() == 1 for gain in gains)


@pytest.mark.parametrize(("factor", "share"), [(0, 0.03), (-2, 0.03), (float("inf"), 0.1), (2, 0)])
def test_impossible_factors_and_shares_are_refused(transformer, factor, share):
    with pytest.raises(BenchError, match="outlier channels: factor .* share"):
        add_outlier_channels(transformer, factor, share, 0)


def test_a_second_round_is_refused(transformer):
    changed = add_outlier_channels(transformer, 2, 0.03, 0)
    with pytest.raises(BenchError, match="has outlier channels already"):
        add_outlier_channels(changed, 2, 0.03, 1)


def test_a_variant_is_loaded_from_the_plain_weights(teacher, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_latent_diffusion(teacher, path, {})
    plain = load_latent_diffusion(teacher.spec, path)
    spec = replace(teacher.spec, outliers={"factor": 16, "share": 0.03, "seed": 0})
    variant = load_latent_diffusion(spec, path)
    assert not variant.training
    assert not any(module.training for module in variant.modules())
    assert not any(parameter.requires_grad for parameter in variant.parameters())
    x = torch.randn(2, *plain.latent_shape, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    assert torch.equal(variant.predict(x, 501, labels, 1.5), plain.predict(x, 501, labels, 1.5))
    gains = [value for key, value in variant.unet.state_dict().items() if key.endswith("gain")]
    assert {gain.max().item() for gain in gains} == {16}
    save_latent_diffusion(variant, tmp_path / "variant.safetensors", {})
    with pytest.raises(BenchError, match=r"unexpected key\(s\).*gain"):
        load_latent_diffusion(spec, tmp_path / "variant.safetensors")


def test_a_student_of_a_variant_keeps_its_channels(teacher, recipe):
    plain = copy.deepcopy(teacher)
    teacher.unet = add_outlier_channels(teacher.unet, 8, 0.03, 0)
    spec = MethodSpec("hqdm", "hqdm", "hqdm", {})
    student = build_student(spec, teacher, Bits(4, 4), recipe, 0)
    assert set(student.quantized_layers()) == set(
        build_student(spec, plain, Bits(4, 4), recipe, 0).quantized_layers()
    )
    raised = teacher.unet.get_submodule("middle_block.0.in_layers.1")
    kept = student.network.get_submodule("middle_block.0.in_layers.1")
    assert isinstance(kept, RaisedSiLU)
    assert kept is not raised
    assert torch.equal(kept.gain, raised.gain)
    twin = copy.deepcopy(student).double()
    assert twin.network.get_submodule("middle_block.0.in_layers.1").gain.dtype == torch.float64
