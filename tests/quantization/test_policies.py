"""Named layer policies on the three latent diffusion structures, and on what has other names."""

from collections import Counter

import pytest
import torch
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models import UNet
from hqdm_bench.quantization import full, official, roles

# Keys of the public CompVis configurations; total and trained layers as hard-wired in the
# released EfficientDM and HQ-DM scripts.
SHARED = {"image_size": 64, "in_channels": 3, "out_channels": 3, "num_res_blocks": 2}
FULL_SIZE = {
    "cin256": {
        **SHARED,
        "model_channels": 192,
        "attention_resolutions": [8, 4, 2],
        "channel_mult": [1, 2, 3, 5],
        "num_heads": 1,
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": 512,
    },
    "lsun_beds256": {
        **SHARED,
        "model_channels": 224,
        "attention_resolutions": [8, 4, 2],
        "channel_mult": [1, 2, 3, 4],
        "num_head_channels": 32,
    },
    "lsun_churches256": {
        **SHARED,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 192,
        "attention_resolutions": [1, 2, 4, 8],
        "channel_mult": [1, 2, 2, 4, 4],
        "num_heads": 8,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    },
}


def having(roles, *wanted):
    return [name for name, role in roles.items() if role in wanted]


def test_the_layer_lists_of_the_oracle_unet(manifest):
    policy = manifest["policy"]
    found = official(UNet(**policy["unet"]))
    assert having(found, "low_bit", "static_8bit") == policy["layers_in_order"]
    assert having(found, "static_8bit") == policy["static_8bit_layers"]
    assert having(found, "full_precision") == policy["full_precision_layers"]
    assert len(policy["layers_in_order"]) == 77


@pytest.mark.parametrize(
    ("name", "total", "skips", "downsamples", "conv1d"),
    [
        ("cin256", 265, 15, 3, 0),
        ("lsun_beds256", 73, 15, 3, 32),
        ("lsun_churches256", 109, 17, 0, 42),
    ],
)
def test_layer_counts_of_the_full_size_models(name, total, skips, downsamples, conv1d):
    with torch.device("meta"):
        unet = UNet(**FULL_SIZE[name])
    found = official(unet)
    special = ["time_embed.0", "time_embed.2", "input_blocks.0.0", "out.2"]
    assert having(found, "static_8bit") == special
    assert len(having(found, "low_bit")) == total - 4
    exempt = having(found, "full_precision")
    assert len([one for one in exempt if one.endswith("skip_connection")]) == skips
    assert len([one for one in exempt if one.endswith(".op")]) == downsamples
    assert len(exempt) == skips + downsamples + conv1d
    assert set(full(unet).values()) == {"low_bit"}
    assert len(full(unet)) == total + len(exempt)


def test_only_the_own_name_decides():
    """Neither "out_layers" nor "to_out" holds "op"; a parent called "skip" exempts nothing."""
    model = nn.ModuleDict(
        {
            "first": nn.Linear(2, 2),
            "skip": nn.ModuleDict({"proj_out": nn.Linear(2, 2), "op": nn.Conv2d(2, 2, 1)}),
            "to_out": nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)),
            "skip_connection": nn.Conv2d(2, 2, 1),
            "qkv": nn.Conv1d(2, 2, 1),
            "norm": nn.GroupNorm(1, 2),
            "third": nn.Linear(2, 2),
        }
    )
    assert official(model) == {
        "first": "static_8bit",
        "skip.proj_out": "static_8bit",
        "skip.op": "full_precision",
        "to_out.0": "static_8bit",
        "to_out.2": "low_bit",
        "skip_connection": "full_precision",
        "qkv": "full_precision",
        "third": "static_8bit",
    }
    assert roles("full", model) == full(model)
    assert roles("official", model) == official(model)


@pytest.fixture(scope="module", params=FULL_SIZE)
def unet(request):
    """Name and network, without numbers."""
    with torch.device("meta"):
        return request.param, UNet(**FULL_SIZE[request.param])


# Layers of the three UNets: Conv2d and Linear without "skip" and "op", then skip, op, Conv1d, and
# the projections of the time embedding, one a residual block.
COUNTS = {
    "cin256": (265, 15, 3, 0, 22),
    "lsun_beds256": (73, 15, 3, 32, 22),
    "lsun_churches256": (109, 17, 0, 42, 35),
}
FIRST, SECOND, INPUT, OUTPUT = "time_embed.0", "time_embed.2", "input_blocks.0.0", "out.2"


def test_ptqd(unet):
    name, network = unet
    named, *rest, _ = COUNTS[name]
    found = roles("ptqd", network)
    assert having(found, "static_8bit") == [FIRST, INPUT, OUTPUT]
    assert Counter(found.values()) == Counter(
        low_bit=named - 3, static_8bit=3, full_precision=sum(rest)
    )
    assert found[SECOND] == "low_bit"
    usual = official(network)
    assert {one for one in found if found[one] != usual[one]} == {SECOND}


def test_tfmq(unet):
    name, network = unet
    named, *rest, _ = COUNTS[name]
    found = roles("tfmq", network)
    assert having(found, "weight_only") == [SECOND, "input_blocks.1.0.in_layers.2"]
    assert Counter(found.values()) == Counter(
        low_bit=named - 5, weight_only=2, full_precision=3 + sum(rest)
    )
    usual = official(network)
    exempt = set(having(found, "full_precision")) - set(having(usual, "full_precision"))
    assert exempt == {FIRST, INPUT, OUTPUT}


def test_dmq(unet):
    name, network = unet
    *layers, projections = COUNTS[name]
    found = roles("dmq", network)
    exempt = having(found, "full_precision")
    assert exempt[:3] == [FIRST, SECOND, INPUT]
    assert exempt[-1] == OUTPUT
    assert len(exempt) == projections + 4
    assert all(one.endswith("emb_layers.1") for one in exempt[3:-1])
    assert len(having(found, "low_bit")) == sum(layers) - projections - 4
    low_bit = having(found, "low_bit")
    assert sum(one.endswith("skip_connection") for one in low_bit) == layers[1]
    assert sum(one.endswith(".op") for one in low_bit) == layers[2]


def test_quest(unet):
    name, network = unet
    *layers, _ = COUNTS[name]
    found = roles("quest", network)
    assert having(found, "input_8bit") == [INPUT, OUTPUT]
    assert Counter(found.values()) == Counter(low_bit=sum(layers) - 2, input_8bit=2)


def test_bases_go_by_order_type_and_name_on_other_modules():
    """Names of diffusers, and of the networks TFMQ-DM's code knows besides."""
    model = nn.ModuleDict(
        {
            "conv_in": nn.Conv2d(2, 2, 1),
            "time_embedding": nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}),
            "conv1": nn.Conv2d(2, 2, 1),
            "time_emb_proj": nn.Linear(2, 2),
            "conv_shortcut": nn.Conv2d(2, 2, 1),
            "downsample": nn.ModuleDict({"conv": nn.Conv2d(2, 2, 1), "pre": nn.Conv2d(2, 2, 1)}),
            "qkv": nn.Conv1d(2, 2, 1),
            "grouped": nn.Conv2d(2, 2, 1, groups=2),
            "last": nn.Linear(2, 2),
        }
    )
    found = roles("tfmq", model)
    exempt = ["conv_in", "time_embedding.b", "conv_shortcut", "downsample.conv", "qkv", "grouped"]
    assert having(found, "full_precision") == [*exempt, "last"]
    assert having(found, "weight_only") == ["time_embedding.a", "conv1"]
    found = roles("dmq", model)
    temporal = ["time_embedding.a", "time_embedding.b", "time_emb_proj"]
    assert having(found, "full_precision") == ["conv_in", *temporal, "grouped", "last"]
    found = roles("quest", nn.Sequential(nn.Linear(2, 2), model["conv1"], model["last"]))
    assert found == {"0": "low_bit", "1": "input_8bit", "2": "input_8bit"}
    found = roles("quest", nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))))
    assert found == {"0": "input_8bit", "1": "low_bit", "2": "input_8bit"}
    assert roles("tfmq; conv1 = low_bit", model)["conv1"] == "low_bit"


@pytest.mark.parametrize(
    ("policy", "needs"), [("official", 5), ("ptqd", 4), ("tfmq", 6), ("dmq", 3), ("quest", 3)]
)
def test_too_few_layers_are_refused(policy, needs):
    layers = [nn.Linear(2, 2) for _ in range(needs)]
    found = roles(policy, nn.Sequential(*layers))
    assert len(having(found, "low_bit")) == 1
    with pytest.raises(
        BenchError, match=f"the {policy} policy .* at least {needs}; Seq.* {needs - 1} to"
    ):
        roles(policy, nn.Sequential(*layers[1:]))
