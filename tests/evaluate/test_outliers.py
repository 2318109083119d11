from typing import Any

import pytest
import torch

from hqdm_bench.catalogue import ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors
from hqdm_bench.distill.trajectories import Trajectories
from hqdm_bench.evaluate.outliers import ChannelMaxima, record_outliers, write_outliers
from hqdm_bench.hadamard import sylvester
from hqdm_bench.models import LatentDiffusion, build_latent_diffusion

CONVOLUTION = "input_blocks.1.0.in_layers.2"
SIDES = ("before", "after")
LINEAR = "middle_block.1.transformer_blocks.0.ff.net.2"


@pytest.fixture(scope="module")
def teacher() -> LatentDiffusion:
    unet: dict[str, Any] = {
        "image_size": 4,
        "in_channels": 3,
        "out_channels": 3,
        "model_channels": 32,
        "attention_resolutions": [],
        "num_res_blocks": 1,
        "channel_mult": [1],
        "num_heads": 1,
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": 32,
    }
    ddconfig = {
        "double_z": False,
        "z_channels": 3,
        "resolution": 8,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    spec = ModelSpec(
        name="tiny",
        title="tiny",
        paper_dataset="imagenet",
        source="embedded",
        unet=unet,
        first_stage={"kind": "vq", "embed_dim": 3, "n_embed": 16, "ddconfig": ddconfig},
        condition={"n_classes": 4, "embed_dim": 32},
        scale_factor=1.0,
        beta_start=0.0015,
        beta_end=0.0195,
    )
    return build_latent_diffusion(spec).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def trajectories() -> Trajectories:
    random = torch.Generator().manual_seed(0)
    x_t = torch.randn((3, 4, 2, 3, 4, 4), generator=random)
    labels = torch.randint(3, (3, 2), generator=random)
    return Trajectories(x_t, torch.zeros_like(x_t), labels, (1, 251, 501, 751), 1.5, 2, {})


def inputs(teacher, trajectories, name, step):
    """What enters a layer, all trajectories together and both halves of the guided batch."""
    seen = []
    handle = teacher.unet.get_submodule(name).register_forward_hook(
        lambda _, args, __: seen.append(args[0])
    )
    x = trajectories.x_t[:, step].flatten(0, 1)
    labels = trajectories.labels.flatten()
    for given in (torch.full_like(labels, 3), labels):
        context = teacher.context(given)
        teacher.unet(x, torch.full((6,), trajectories.timesteps[step]), context)
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("name", [CONVOLUTION, LINEAR])
def test_maxima_and_weights_are_those_of_the_definition(teacher, trajectories, name):
    found = record_outliers(teacher, trajectories, [name], [0, 3], order=5)
    for step in (0, 3):
        x = inputs(teacher, trajectories, name, step)
        rows = x.permute(0, 2, 3, 1).flatten(0, 2) if x.dim() == 4 else x.flatten(0, 1)
        blocks = rows.double().unflatten(1, (-1, 32))
        rotated = (blocks @ sylvester(5)).flatten(1)
        before, after = (found.tensors[f"{name}/step{step}/{part}"] for part in ("before", "after"))
        torch.testing.assert_close(before, rows.abs().amax(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(after, rotated.abs().amax(0).float(), rtol=1e-5, atol=1e-5)
    weight = teacher.unet.get_submodule(name).weight
    assert torch.equal(found.tensors[f"{name}/weight/before"], weight)
    channels_last = weight.double().movedim(1, -1).unflatten(-1, (-1, 32))
    rotated_weight = (channels_last @ sylvester(5)).flatten(-2).movedim(-1, 1).float()
    torch.testing.assert_close(
        found.tensors[f"{name}/weight/after"], rotated_weight, rtol=1e-5, atol=1e-6
    )


def test_the_file_holds_keys_and_metadata(teacher, trajectories, tmp_path):
    path = tmp_path / "outliers.safetensors"
    write_outliers(path, record_outliers(teacher, trajectories, [CONVOLUTION, LINEAR], [1, 2]))
    tensors, metadata = read_tensors(path)
    parts = [f"{part}/{side}" for part in ("step1", "step2", "weight") for side in SIDES]
    assert set(tensors) == {f"{name}/{part}" for name in (CONVOLUTION, LINEAR) for part in parts}
    assert metadata == {
        "layers": [CONVOLUTION, LINEAR],
        "steps": [1, 2],
        "timesteps": [251, 501],
        "order": 5,
        "trajectories": 3,
    }
    assert all(not module._forward_pre_hooks for module in teacher.unet.modules())


def test_a_single_outlier_channel_is_spread_over_its_block():
    x = torch.zeros(2, 64, 3, 3)
    x[1, 40, 2, 0] = -8.0
    maxima = ChannelMaxima(1, 5)
    maxima.update(x)
    maxima.update(torch.zeros_like(x))
    spread = torch.zeros(64)
    spread[32:] = 8 / 32**0.5
    assert maxima.before is not None
    assert maxima.before.nonzero().flatten().tolist() == [40]
    torch.testing.assert_close(maxima.after, spread)


def test_an_unknown_layer_lists_close_names(teacher, trajectories):
    with pytest.raises(BenchError, match=r"close names: .*input_blocks\.1\.0\.in_layers\.2"):
        record_outliers(teacher, trajectories, ["input_blocks.1.0.in_layer.2"], [0])
    with pytest.raises(BenchError, match="no convolution or linear layer"):
        record_outliers(teacher, trajectories, ["input_blocks.1.0.in_layers.0"], [0])


@pytest.mark.parametrize("step", [-1, 4])
def test_an_unknown_step(teacher, trajectories, step):
    with pytest.raises(BenchError, match="it has 0 to 3"):
        record_outliers(teacher, trajectories, [CONVOLUTION], [step])


def test_channels_that_do_not_split_into_blocks(teacher, trajectories):
    with pytest.raises(BenchError, match="3 input channels"):
        record_outliers(teacher, trajectories, ["input_blocks.0.0"], [0])
