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


def test_errors():
    with pytest.raises(BenchError, match=r"choose one of \['full', 'official'\]"):
        roles("all", nn.Linear(2, 2))
    with pytest.raises(BenchError, match="at least five"):
        official(nn.Sequential(nn.Linear(2, 2)))
