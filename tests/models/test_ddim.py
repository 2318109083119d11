import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models import DDIM, NoiseSchedule

FACTS = json.loads((Path(__file__).parents[1] / "data/ldm/ddim_facts.json").read_text())["models"]


def schedule_of(facts):
    return NoiseSchedule(facts["linear_start"], facts["linear_end"])


def close(actual, expected, rtol):
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=torch.float64), rtol=rtol, atol=0
    )


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
def test_schedule_equals_the_reference(facts):
    schedule = schedule_of(facts)
    assert schedule.alphas_cumprod.dtype == torch.float64
    close(schedule.betas, facts["betas_float64"], 1e-12)
    close(schedule.alphas_cumprod, facts["alphas_cumprod_float32"], 2**-24)


@pytest.mark.parametrize("key", FACTS["lsun_churches256"]["ddim"])
@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
def test_tables_equal_the_reference(facts, key):
    expected = facts["ddim"][key]
    steps, eta = (float(part.split("=")[1]) for part in key.split(","))
    ddim = DDIM.from_schedule(schedule_of(facts), int(steps), eta)
    assert ddim.timesteps.tolist() == expected["timesteps_ascending (sampled in reverse)"]
    close(ddim.alphas, expected["alphas"], 2**-23)
    close(ddim.alphas_prev, expected["alphas_prev"], 2**-23)
    close(ddim.sigmas, expected["sigmas"], 1e-6)
    close(ddim.sqrt_one_minus_alphas**2 + ddim.alphas, [1.0] * ddim.steps, 1e-12)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [20, 100])
def test_a_whole_trajectory_equals_diffusers(steps, eta):
    reference = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )
    reference.set_timesteps(steps)
    ddim = DDIM.from_schedule(NoiseSchedule(0.0015, 0.0195), steps, eta)
    assert reference.timesteps.tolist() == ddim.timesteps.flip(0).tolist()
    generator = torch.Generator().manual_seed(0)
    ours = theirs = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    for index in reversed(range(steps)):
        noise = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
        t = int(ddim.timesteps[index])
        ours = ddim.step(ours, torch.tanh(ours), index, noise)
        theirs = reference.step(
            torch.tanh(theirs), t, theirs, eta=eta, variance_noise=noise
        ).prev_sample
    # The other side works with float32 tables, and 1/sqrt(alpha) of the first step is 53.
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_true_noise_leads_back_along_the_same_line():
    schedule = NoiseSchedule(0.0015, 0.0155)
    ddim = DDIM.from_schedule(schedule, 50, eta=0.0)
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=generator, dtype=torch.float64)
    x = schedule.add_noise(clean, noise, ddim.timesteps[-1:])
    for index in reversed(range(50)):
        x = ddim.step(x, noise, index, None)
        following = ddim.timesteps[index - 1 : index] if index else torch.tensor([0])
        torch.testing.assert_close(
            x, schedule.add_noise(clean, noise, following), atol=1e-4, rtol=0
        )


def test_full_noise_share_draws_the_ancestral_posterior():
    # Closed form of the posterior variance, (1 - abar_prev) / (1 - abar) * (1 - abar / abar_prev).
    schedule = NoiseSchedule(0.0015, 0.0195)
    ddim = DDIM.from_schedule(schedule, 10, eta=1.0)
    zero, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    abar, before = schedule.alphas_cumprod[[401, 301]].tolist()
    expected = ((1 - before) / (1 - abar) * (1 - abar / before)) ** 0.5
    assert ddim.step(zero, zero, 4, one).item() == pytest.approx(expected, rel=1e-5)
    half = DDIM.from_schedule(schedule, 10, eta=0.5)
    assert half.step(zero, zero, 4, one).item() == pytest.approx(expected / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("steps", "words"),
    [(30, "really take 31"), (400, "really take 500"), (0, "from 1 to 500"), (1000, "1 to 500")],
)
def test_step_counts_the_reference_would_change_are_refused(steps, words):
    with pytest.raises(BenchError, match=words):
        DDIM.from_schedule(NoiseSchedule(0.0015, 0.0195), steps, 0.0)


def test_noise_is_needed_exactly_when_it_is_used():
    schedule = NoiseSchedule(0.0015, 0.0195)
    x = torch.ones(1, 1, 2, 2)
    with pytest.raises(BenchError, match="noise"):
        DDIM.from_schedule(schedule, 20, 1.0).step(x, x, 3, None)
    quiet = DDIM.from_schedule(schedule, 20, 0.0)
    assert torch.equal(quiet.step(x, x, 3, None), quiet.step(x, x, 3, 7 * x))
