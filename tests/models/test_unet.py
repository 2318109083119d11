import gzip
import hashlib
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models import UNet, timestep_embedding

DATA = Path(__file__).parents[1] / "data" / "ldm"
NAMES = ["cin256", "lsun_beds256", "lsun_churches256"]
MINI = {
    "image_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 32,
    "attention_resolutions": [2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_heads": 1,
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "context_dim": 16,
}


def golden(name):
    with safe_open(DATA / f"golden_rule_{name}_mc64.safetensors", "pt") as handle:
        return {key: handle.get_tensor(key) for key in handle.keys()}, handle.metadata()  # noqa: SIM118


def rule_weights(key, shape):
    """Weights of the golden files: a hash of the flat index and the key (see their headers)."""
    mask = np.uint64(2**32 - 1)
    state = np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(2654435769)
    state = (state + np.uint64(zlib.crc32(key.encode()))) & mask
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        state ^= state >> np.uint64(shift)
        state = (state * np.uint64(factor)) & mask
    state ^= state >> np.uint64(16)
    if len(shape) > 1:
        exponent = round(math.log2(math.sqrt(56 / 3) * math.sqrt(math.prod(shape[1:]))))
        base, count = 0, 15
    else:
        base, count, exponent = (1, 7, 3) if key.endswith("weight") else (0, 15, 6)
    codes = (state % np.uint64(count)).astype(np.int64) - count // 2
    return torch.from_numpy((base + codes * 2.0**-exponent).reshape(shape))


def golden_unet(metadata):
    unet = UNet(**json.loads(metadata["unet_params"])).double().eval()
    state = {key: rule_weights(key, value.shape) for key, value in unet.state_dict().items()}
    sha = hashlib.sha256()
    for key in sorted(state):
        sha.update(key.encode() + state[key].float().numpy().astype("<f4").tobytes())
    assert sha.hexdigest() == metadata["state_dict_sha256"]
    unet.load_state_dict(state, strict=True)
    return unet


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_output_equals_the_reference_in_float64(name):
    tensors, metadata = golden(name)
    unet = golden_unet(metadata)
    x, t = tensors["x"].double(), tensors["t"]
    embedding = timestep_embedding(t, unet.config.model_channels)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding, tensors["t_emb"], atol=1e-6, rtol=0)
    # cos and sin of another maths library may differ in the last bit of float32, which would
    # drown a float64 comparison: what follows takes the stored embedding.
    unet.time_embed.register_forward_pre_hook(lambda *_: (tensors["t_emb"].double(),))
    for context, expected in (("context", "out_f64"), ("context3", "out_f643")):
        if expected in tensors:
            given = tensors[context].double() if context in tensors else None
            torch.testing.assert_close(unet(x, t, given), tensors[expected], atol=1e-10, rtol=0)


@torch.no_grad()
def test_memory_format_and_batch_do_not_change_the_result():
    tensors, metadata = golden("lsun_churches256")
    unet = golden_unet(metadata).float()
    x, t = tensors["x"], tensors["t"]
    plain = unet(x, t)
    torch.testing.assert_close(plain, tensors["out"], atol=2e-5, rtol=0)
    rows = torch.cat([unet(x[i : i + 1], t[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(rows, plain, atol=2e-5, rtol=0)
    last = unet.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t)
    torch.testing.assert_close(last, plain, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_keys_shapes_and_parameter_count_of_the_full_models(name):
    facts = json.loads(gzip.decompress((DATA / f"keys_{name}.json.gz").read_bytes()))
    params = json.loads(golden(name)[1]["unet_params"])
    params["model_channels"] = {"lsun_beds256": 224}.get(name, 192)
    if "context_dim" in params:
        params["context_dim"] = 512
    with torch.device("meta"):
        unet = UNet(**params)
    prefix = "model.diffusion_model."
    expected = {
        key.removeprefix(prefix): shape
        for key, shape in facts["keys"].items()
        if key.startswith(prefix)
    }
    assert {key: list(value.shape) for key, value in unet.state_dict().items()} == expected
    count = sum(parameter.numel() for parameter in unet.parameters())
    assert count == facts["parameter_counts"]["unet (model.diffusion_model)"]
    # Layer policies count layers as they are defined.
    layers = [key for key, part in unet.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert layers[:3] == ["time_embed.0", "time_embed.2", "input_blocks.0.0"]
    assert layers[-1] == "out.2"
    official = [key for key in layers if "skip" not in key and "op" not in key.split(".")]
    assert len(official) == {"cin256": 265, "lsun_beds256": 73, "lsun_churches256": 109}[name]


def test_a_new_unet_predicts_nothing_and_every_weight_can_learn():
    unet = UNet(**MINI)
    x, t, context = torch.randn(2, 3, 8, 8), torch.tensor([1, 951]), torch.randn(2, 1, 16)
    assert unet(x, t, context).abs().max() == 0
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.1)
    unet(x, t, context).square().sum().backward()
    silent = {key for key, value in unet.named_parameters() if not value.grad.abs().sum() > 0}
    # With a single token the softmax of cross-attention is 1, whatever the query and the key.
    assert all(".norm2." in key or ".attn2.to_q." in key or ".attn2.to_k." in key for key in silent)


def test_average_pooling_replaces_the_resampling_convolutions():
    keys = UNet(**MINI, conv_resample=False).state_dict().keys()
    assert not any(".op." in key or key.endswith("conv.weight") for key in keys)
    assert UNet(**MINI, conv_resample=False)(
        torch.randn(1, 3, 8, 8), torch.tensor([5]), torch.randn(1, 1, 16)
    ).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_chanels": 32}, "unknown key 'unet.model_chanels'"),
        ({"dims": 3}, "unet.dims is 3; only 2"),
        ({"use_new_attention_order": True}, "use_new_attention_order"),
        ({"model_channels": 48}, "48 channels"),
        ({"num_heads": 3}, "64 channels do not divide by 3"),
        ({"num_head_channels": 32}, "exactly one of num_heads"),
        ({"context_dim": None}, "context_dim come together"),
    ],
)
def test_refused_structures(change, words):
    with pytest.raises(BenchError, match=words):
        UNet(**{**MINI, **change})


def test_missing_key_and_missing_context_are_named():
    with pytest.raises(BenchError, match="out_channels"):
        UNet(**{key: value for key, value in MINI.items() if key != "out_channels"})
    with pytest.raises(BenchError, match="context"):
        UNet(**MINI)(torch.randn(1, 3, 8, 8), torch.tensor([1]))


def test_keys_without_effect_are_accepted():
    ignored = {"use_checkpoint": True, "legacy": False, "image_size": 99, "use_fp16": False}
    assert UNet(**{**MINI, **ignored}).config == UNet(**MINI).config
