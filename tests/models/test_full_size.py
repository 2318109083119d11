"""The three models of the paper at their own size: keys, conversion, outputs of the reference."""

import dataclasses
import gzip
import hashlib
import json
import math
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from hqdm_bench.artefacts.conversion import averaged_name, sampling_weights
from hqdm_bench.catalogue import load_catalogue
from hqdm_bench.common.errors import BenchError
from hqdm_bench.models import (
    KLFirstStage,
    UNet,
    build_first_stage,
    load_latent_diffusion,
    timestep_embedding,
)
from hqdm_bench.models.checkpoint import checkpoint_shapes, weight_shapes
from hqdm_bench.models.stand_in import stand_in_state_dict, write_stand_in_checkpoint

DATA = Path(__file__).parents[1] / "data" / "ldm"
MODELS = load_catalogue(Path(__file__).parents[2]).models
# Name in the catalogue, name of the fixtures, weights of UNet and first stage.
SIZES = [
    ("imagenet", "cin256", 400_920_579, 55_322_782),
    ("bedrooms", "lsun_beds256", 274_056_163, 55_322_782),
    ("churches", "lsun_churches256", 294_966_916, 83_653_863),
]
NAMES = [size[:2] for size in SIZES]
FULL_WIDTH = DATA / "full_width.safetensors"


def facts(fixture):
    return json.loads(gzip.decompress((DATA / f"keys_{fixture}.json.gz").read_bytes()))


def weightless_state(shapes):
    """Every key at its full shape, one number of memory each."""
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(("model", "fixture", "unet", "first_stage"), SIZES)
def test_the_checkpoint_of_a_model_has_exactly_the_published_keys(
    model, fixture, unet, first_stage
):
    shapes = checkpoint_shapes(MODELS[model])
    assert {key: list(shape) for key, shape in shapes.items()} == facts(fixture)["keys"]
    counts = {
        prefix: sum(shape.numel() for key, shape in shapes.items() if key.startswith(prefix))
        for prefix in ("model.", "first_stage_model.", "cond_stage_model.")
    }
    classes = 512_512 if model == "imagenet" else 0
    assert list(counts.values()) == [unet, first_stage, classes]


@pytest.mark.parametrize(("model", "fixture"), NAMES[1:])
def test_the_names_of_the_averages(model, fixture):
    names = [key for key in weight_shapes(MODELS[model]) if key.startswith("model.")]
    assert {name: averaged_name(name) for name in names} == facts(fixture)["ema_name_of_parameter"]
    assert len({averaged_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(("model", "fixture"), [*NAMES, ("churches-raw", "lsun_churches256")])
def test_the_full_key_set_is_selected_from_strictly(model, fixture):
    spec = MODELS[model]
    state = weightless_state(facts(fixture)["keys"])
    for key in state:
        if key.startswith("model_ema.diffusion"):
            state[key] = torch.ones(1).expand(state[key].shape)
    shapes = weight_shapes(spec)
    weights = sampling_weights(state, shapes, spec.ema, "file")
    own_scale = {"scale_factor"} if spec.scale_factor is None else set()
    assert weights.keys() == shapes.keys() | own_scale
    assert all(weights[key].shape == shape for key, shape in shapes.items())
    for key in shapes:
        averaged = spec.ema and key.startswith("model.")
        assert weights[key].flatten()[0] == (1 if averaged else 0)
    for key in [*shapes][::97]:
        lacking = {name: value for name, value in state.items() if name != key}
        with pytest.raises(BenchError, match=f"1 missing key.s. .{key}"):
            sampling_weights(lacking, shapes, spec.ema, "file")
        with pytest.raises(BenchError, match=f"1 unexpected key.s. .{key}_"):
            sampling_weights({**state, f"{key}_": torch.zeros(1)}, shapes, spec.ema, "file")


CONVERT = """
import resource, sys
from pathlib import Path
from hqdm_bench.catalogue import load_catalogue
from hqdm_bench.models.checkpoint import convert_checkpoint
root, source, target = map(Path, sys.argv[1:])
convert_checkpoint(load_catalogue(root).models["imagenet"], source, target)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_a_full_size_checkpoint_is_converted_without_a_copy_in_memory(tmp_path):
    """1.83 GB; the resident peak, mapped file and interpreter, is about 2.6 GB."""
    spec = MODELS["imagenet"]
    source, target = tmp_path / "model.ckpt", tmp_path / "teacher.safetensors"
    try:
        write_stand_in_checkpoint(spec, source, seed=0)
        size = source.stat().st_size
        assert 1.827e9 < size < 1.829e9
        root = Path(__file__).parents[2]
        command = [sys.executable, "-c", CONVERT, str(root), str(source), str(target)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert int(done.stdout) < 2 * size
        source.unlink()
        model = load_latent_diffusion(spec, target)
        state = stand_in_state_dict(spec, 0)
        assert sum(value.numel() for value in model.unet.parameters()) == 400_920_579
        for key, value in model.unet.state_dict().items():
            assert torch.equal(value, state[f"model.diffusion_model.{key}"])
    finally:  # the test runner keeps its folders for a while
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def hashed(key, count):
    """The rule of the fixtures: a hash of the flat index and the key, 32 bits."""
    state = np.arange(count, dtype=np.uint32)
    state *= np.uint32(2654435769)
    state += np.uint32(zlib.crc32(key.encode()))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        state ^= state >> np.uint32(shift)
        state *= np.uint32(factor)
    state ^= state >> np.uint32(16)
    return state


def numbers(key, shape, base, count, exponent):
    codes = (hashed(key, math.prod(shape)) % np.uint32(count)).astype(np.float64)
    codes -= count // 2
    codes *= 2.0**-exponent
    codes += base
    return torch.from_numpy(codes.reshape(shape))


def rule_weights(key, shape):
    if len(shape) > 1:
        fan = math.prod(shape[1:])
        return numbers(key, shape, 0, 15, round(math.log2(math.sqrt(56 / 3 * fan))))
    return numbers(key, shape, 1, 7, 3) if key.endswith("weight") else numbers(key, shape, 0, 15, 6)


def rule_input(key, *shape):
    return numbers(key, shape, 0, 255, 6)


def with_rule_weights(module, sha256):
    """Float64 weights of a module on the meta device, checked against the fixture's digest."""
    state, sha = {}, hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        state[key] = rule_weights(key, tuple(value.shape))
        sha.update(key.encode() + state[key].float().numpy().astype("<f4").tobytes())
    assert sha.hexdigest() == sha256
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval()


def golden(name):
    with safe_open(FULL_WIDTH, "pt") as handle:
        keys = [key for key in handle.keys() if key.startswith(f"{name}/")]  # noqa: SIM118
        tensors = {key.partition("/")[2]: handle.get_tensor(key) for key in keys}
        return tensors, json.loads(handle.metadata()["models"])[name]


def assert_equals(found, expected):
    """Agree to 1e-10, and are not the same by being nothing."""
    assert expected.dtype == torch.float64
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "fixture"), NAMES)
@torch.no_grad()
def test_full_width_unet_equals_the_reference_in_float64(model, fixture):
    spec = MODELS[model]
    expected, described = golden(fixture)
    with torch.device("meta"):
        unet = UNet(**spec.unet)
        assert unet.config == UNet(**described["params"]).config
    unet = with_rule_weights(unet, described["state_dict_sha256"])
    assert sum(value.numel() for value in unet.parameters()) == described["parameters"]
    t = torch.tensor([501])
    embedding = timestep_embedding(t, unet.config.model_channels)
    torch.testing.assert_close(embedding, expected["t_emb"], atol=1e-6, rtol=0)
    # Another maths library may round sines differently in float32: take the stored ones.
    unet.time_embed.register_forward_pre_hook(lambda *_: (expected["t_emb"].double(),))
    size = spec.unet["image_size"]
    x = rule_input("x", 1, spec.unet["in_channels"], size, size)
    if spec.condition is None:
        assert_equals(unet(x, t), expected["out"])
    else:
        assert_equals(unet(x, t, rule_input("context", 1, 1, 512)), expected["out"])
        assert_equals(unet(x, t, rule_input("context3", 1, 3, 512)), expected["out3"])


@pytest.mark.slow
@pytest.mark.parametrize(("model", "fixture"), [("imagenet", "vq_f4"), ("churches", "kl_f8")])
@torch.no_grad()
def test_full_width_first_stage_equals_the_reference_in_float64(model, fixture):
    expected, described = golden(fixture)
    with torch.device("meta"):
        stage = build_first_stage(MODELS[model].first_stage)
    stage = with_rule_weights(stage, described["state_dict_sha256"])
    assert sum(value.numel() for value in stage.parameters()) == described["parameters"]
    size = 8 if fixture == "kl_f8" else 16
    z = rule_input("z", 1, described["params"]["embed_dim"], size, size)
    images = rule_input("images", 1, 3, 64, 64)
    if isinstance(stage, KLFirstStage):
        encoded = torch.cat(stage.moments(images), dim=1)
    else:
        encoded = stage.encode(images)
    assert_equals(encoded, expected["encoded"])
    assert_equals(stage.decode(z), expected["decoded"])


def test_bedrooms_and_imagenet_share_their_first_stage():
    assert MODELS["bedrooms"].first_stage == MODELS["imagenet"].first_stage
    raw, averaged = MODELS["bedrooms-raw"], MODELS["bedrooms"]
    same = dataclasses.replace(raw, name=averaged.name, title=averaged.title, ema=True)
    assert same == averaged
