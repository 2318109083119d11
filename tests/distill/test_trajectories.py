import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hqdm_bench.catalogue import Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.common.tensors import read_metadata, write_tensors
from hqdm_bench.distill import (
    Trajectories,
    generate,
    load_trajectories,
    save_trajectories,
    training_sequence,
)
from hqdm_bench.models import DDIM, LatentDiffusion


def test_shapes_and_split(trajectories: Trajectories) -> None:
    assert trajectories.x_t.shape == trajectories.eps.shape == (3, 4, 2, 3, 4, 4)
    assert trajectories.x_t.dtype == trajectories.eps.dtype == torch.float32
    assert trajectories.timesteps == (1, 251, 501, 751)
    assert trajectories.labels is not None
    assert trajectories.labels.shape == (3, 2)
    assert trajectories.labels.max() < 3  # the null class is not drawn
    assert (len(trajectories.training), len(trajectories.held_out)) == (2, 1)
    assert torch.equal(trajectories.held_out.x_t[0], trajectories.x_t[2])
    assert torch.equal(trajectories.held_out.labels[0], trajectories.labels[2])


def test_every_step_follows_the_teacher_and_the_named_noise(
    trajectories: Trajectories, shared_toy: LatentDiffusion, recipe: Recipe
) -> None:
    ddim = DDIM.from_schedule(shared_toy.schedule, 4, eta=1.0)
    n = 1
    drawn = torch.randn(5, 2, 3, 4, 4, generator=generator("trajectory-noise", recipe.seed, n))
    x = drawn[0]
    with torch.no_grad():
        for call, index in enumerate((3, 2, 1, 0)):
            assert torch.equal(trajectories.x_t[n, index], x)
            eps = shared_toy.predict(x, int(ddim.timesteps[index]), trajectories.labels[n], 1.5)
            assert torch.equal(trajectories.eps[n, index], eps)
            x = ddim.step(x, eps, index, drawn[call + 1])


def test_a_trajectory_depends_on_its_number_and_seed_only(
    trajectories: Trajectories, shared_toy: LatentDiffusion, recipe: Recipe
) -> None:
    other = generate(shared_toy, replace(recipe, pool=1))
    assert torch.equal(other.x_t, trajectories.x_t[:2])
    assert torch.equal(other.eps, trajectories.eps[:2])
    reseeded = generate(shared_toy, replace(recipe, pool=1, seed=4))
    assert not torch.equal(reseeded.x_t, other.x_t)


def test_the_teacher_is_not_differentiated(trajectories: Trajectories) -> None:
    assert not trajectories.eps.requires_grad


def test_an_unconditional_model_has_no_labels(
    teacher: LatentDiffusion, recipe: Recipe, tmp_path: Path
) -> None:
    teacher.embedder, teacher.null_label = None, None
    teacher.unet = copy.deepcopy(teacher.unet)
    teacher.unet.forward = lambda x, timesteps, context: 0.5 * x  # type: ignore[method-assign]
    drawn = generate(teacher, replace(recipe, guidance=1.0))
    assert drawn.labels is None
    assert torch.equal(drawn.eps, 0.5 * drawn.x_t)
    save_trajectories(tmp_path / "t.safetensors", drawn)
    assert load_trajectories(tmp_path / "t.safetensors").labels is None


def test_round_trip_through_a_file_is_exact(
    trajectories: Trajectories, tmp_path: Path, recipe: Recipe
) -> None:
    path = tmp_path / "trajectories.safetensors"
    save_trajectories(path, trajectories, {"model": "toy"})
    loaded = load_trajectories(path)
    for key in ("x_t", "eps", "labels"):
        assert torch.equal(getattr(loaded, key), getattr(trajectories, key))
    for key in ("timesteps", "guidance", "pool", "recipe"):
        assert getattr(loaded, key) == getattr(trajectories, key)
    assert read_metadata(path)["recipe"]["eta"] == recipe.eta
    assert read_metadata(path)["model"] == "toy"


def test_another_file_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t.safetensors", {"x_t": torch.zeros(1)}, {})
    with pytest.raises(BenchError, match="holds no trajectories"):
        load_trajectories(tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps", 5), ("guidance", 3.0), ("eta", 0.0), ("batch", 4), ("seed", 9), ("pool", 7)],
)
def test_a_recipe_they_were_not_drawn_for_is_refused(
    key: str, value: float, trajectories: Trajectories, recipe: Recipe
) -> None:
    trajectories.require(replace(recipe, lora_rank=17, trajectories=99))
    with pytest.raises(BenchError, match=f"drawn with {key} .* says {value}"):
        trajectories.require(replace(recipe, **{key: value}))


def passes(order: list[int], pool: int) -> Iterator[list[int]]:
    for first in range(0, len(order), pool):
        yield order[first : first + pool]


def test_a_seed_draws_permutations_of_the_pool(recipe: Recipe) -> None:
    recipe = replace(recipe, pool=24, trajectories=60)
    order = training_sequence(recipe, seed=0)
    first, second, rest = passes(order, 24)
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second
    assert len(rest) == len(set(rest)) == 12
    assert training_sequence(recipe, seed=0) == order
    assert training_sequence(recipe, seed=1) != order
    assert training_sequence(replace(recipe, trajectories=8), seed=0) == order[:8]
