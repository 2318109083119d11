"""How an image set is cut into shards, and which process draws one, does not change a byte."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from hqdm_bench.catalogue import Bits, MethodSpec
from hqdm_bench.distill import calibrate, generate
from hqdm_bench.methods import build_student
from hqdm_bench.models import save_latent_diffusion
from hqdm_bench.sample import iterate_shards, sample_shard, shard_batches

ARRAYS = ("images", "labels", "index", "latents")
SHARDS = (1, 2, 3, 10)

DRAW = """
import json, sys
from pathlib import Path
from hqdm_bench.catalogue import ModelSpec, Protocol
from hqdm_bench.models import load_latent_diffusion
from hqdm_bench.sample import sample_shard
folder, shard = Path(sys.argv[1]), int(sys.argv[2])
spec = ModelSpec(**json.loads((folder / "spec.json").read_text()))
protocol = Protocol(**json.loads((folder / "protocol.json").read_text()))
model = load_latent_diffusion(spec, folder / "teacher.safetensors")
sample_shard(model, protocol, shard, folder / f"shard{shard}.npz")
"""


def draw(model, protocol, folder):
    """The whole set in one process; the order of the shards must not matter."""
    paths = [folder / f"shard{shard}.npz" for shard in range(protocol.shards)]
    for shard in reversed(range(protocol.shards)):
        sample_shard(model, protocol, shard, paths[shard])
    parts = list(iterate_shards(paths))
    return {key: np.concatenate([getattr(part, key) for part in parts]) for key in ARRAYS}


@pytest.fixture
def protocol(make_protocol):
    """Step noise, guidance, ten batches of two images but for the last one."""
    return make_protocol(eta=0.7, guidance=2.0, images=19, batch=2)


@pytest.fixture
def student(shared_toy, recipe):
    """Four-bit hqdm around the toy: ranges per step, rotation, frozen weights."""
    trajectories = generate(shared_toy, recipe)
    built = build_student(MethodSpec("hqdm", "", "hqdm", {}), shared_toy, Bits(4, 4), recipe, 0)
    calibrate(built, shared_toy, trajectories, recipe, 0)
    return shared_toy.with_unet(built.freeze())


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_the_number_of_shards_changes_no_byte(request, conditional, protocol, tmp_path, name):
    model = conditional if name == "teacher" else request.getfixturevalue("student")
    sets = {
        shards: draw(model, replace(protocol, shards=shards), tmp_path / str(shards))
        for shards in SHARDS
    }
    for shards in SHARDS[1:]:
        for key in ARRAYS:
            assert sets[shards][key].tobytes() == sets[1][key].tobytes(), (shards, key)
    assert sets[1]["index"].tolist() == list(range(19))
    assert sets[1]["images"].std() > 10  # the images are not flat
    assert len(np.unique(sets[1]["labels"])) == model.null_label
    assert len(shard_batches(replace(protocol, shards=10), 9)[-1]) == 1


@pytest.mark.parametrize("change", [{"eta": 0.0}, {"guidance": 1.0}])
def test_step_noise_and_guidance_change_the_set(conditional, protocol, tmp_path, change):
    protocol = replace(protocol, images=2)
    usual = draw(conditional, protocol, tmp_path / "usual")
    other = draw(conditional, replace(protocol, **change), tmp_path / "other")
    assert not np.array_equal(usual["latents"], other["latents"])


def test_a_fresh_process_draws_the_bytes_of_one_that_drew_all(conditional, protocol, tmp_path):
    protocol = replace(protocol, images=7, shards=2)
    draw(conditional, protocol, tmp_path / "one")
    folder = tmp_path / "fresh"
    save_latent_diffusion(conditional, folder / "teacher.safetensors", {})
    (folder / "spec.json").write_text(json.dumps(asdict(conditional.spec)))
    (folder / "protocol.json").write_text(json.dumps(asdict(protocol)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", DRAW, folder, "1"], env=environment, check=True)
    assert (folder / "shard1.npz").read_bytes() == (tmp_path / "one/shard1.npz").read_bytes()
