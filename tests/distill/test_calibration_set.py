"""Calibration inputs: whose they are, at which timesteps, and what they depend on."""

import dataclasses

import pytest
import torch
from torch import Tensor

from hqdm_bench.catalogue import PostTraining
from hqdm_bench.distill import calibration_calls
from hqdm_bench.distill.calibration_set import UNetCall
from hqdm_bench.models import DDIM, LatentDiffusion

SAMPLER = PostTraining(steps=4, eta=0.0, guidance=1.5)


def by_timestep(calls: list[UNetCall]) -> dict[int, list[UNetCall]]:
    found: dict[int, list[UNetCall]] = {}
    for call in calls:
        found.setdefault(int(call[1][0]), []).append(call)
    return found


def rows(calls: list[UNetCall], t: int, *, conditional: bool = True) -> Tensor:
    """Conditional or unconditional latents of all images at a timestep."""
    halves = [x.chunk(2)[int(conditional)] for x, _, _ in by_timestep(calls)[t]]
    return torch.cat(halves)


def test_calls_are_grouped_by_the_true_timesteps(teacher: LatentDiffusion) -> None:
    calls = calibration_calls(teacher, SAMPLER, images=5, seed=0, rows=4)
    ddim = DDIM.from_schedule(teacher.schedule, 4, 0.0)
    times = [int(call[1][0]) for call in calls]
    assert times == sorted(times)
    assert sorted(set(times)) == ddim.timesteps.tolist()
    for x, timesteps, context in calls:
        assert len(x) == len(timesteps) == len(context) <= 4  # type: ignore[arg-type]
        assert (timesteps == timesteps[0]).all()
    assert [len(x) for x, _, _ in by_timestep(calls)[times[0]]] == [4, 4, 2]


def test_an_image_depends_on_its_number_and_the_seed_alone(teacher: LatentDiffusion) -> None:
    few = calibration_calls(teacher, SAMPLER, images=3, seed=0, rows=2)
    many = calibration_calls(teacher, SAMPLER, images=5, seed=0, rows=8)
    other = calibration_calls(teacher, SAMPLER, images=3, seed=1, rows=2)
    for t in by_timestep(few):
        torch.testing.assert_close(rows(few, t), rows(many, t)[:3], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(rows(few, t), rows(other, t))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_path_is_the_guided_samplers(teacher: LatentDiffusion, eta: float) -> None:
    sampler = dataclasses.replace(SAMPLER, eta=eta)
    calls = by_timestep(calibration_calls(teacher, sampler, images=1, seed=0))
    ddim = DDIM.from_schedule(teacher.schedule, 4, eta)
    for index in range(1, 4):
        t, later = int(ddim.timesteps[index]), int(ddim.timesteps[index - 1])
        ((x, times, context),) = calls[t]
        assert torch.equal(*x.chunk(2))
        with torch.no_grad():
            unconditional, conditional = teacher.unet(x, times, context).chunk(2)
        eps = unconditional + 1.5 * (conditional - unconditional)
        step = ddim.step(x[:1], eps, index, torch.zeros_like(x[:1]))
        reached = calls[later][0][0][:1]
        if eta == 0:
            torch.testing.assert_close(reached, step)
        else:
            noise = (reached - step) / float(ddim.sigmas[index])
            assert 0.3 < noise.std() < 2  # fresh noise of the sampler's size


def test_without_guidance_there_is_one_row_an_image(teacher: LatentDiffusion) -> None:
    calls = calibration_calls(teacher, dataclasses.replace(SAMPLER, guidance=1.0), 3, seed=0)
    assert [len(x) for x, _, _ in calls] == [3] * 4
