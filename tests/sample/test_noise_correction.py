"""The sampler with a student whose predictions are corrected."""

import pytest
import torch
from torch import nn

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import Paths, sampled_noise_errors
from hqdm_bench.methods import Request, Student
from hqdm_bench.methods.fp import FullPrecisionOptions
from hqdm_bench.models import DDIM
from hqdm_bench.quantization import NoiseCorrection
from hqdm_bench.sample import ddim_sample

STEPS = 5
TIMES = (1, 201, 401, 601, 801)


class Louder(nn.Module):
    """A UNet whose prediction is (1 + k) times another's, plus noise of a known deviation."""

    def __init__(self, unet: nn.Module, slope: float, sigma: float = 0.0) -> None:
        super().__init__()
        self.unet = unet
        self.slope = slope
        self.sigma = sigma

    def forward(self, x, timesteps, context=None):
        exact = self.unet(x, timesteps, context)
        random = torch.Generator().manual_seed(int(timesteps[0]))
        noise = torch.randn(exact.shape, generator=random)
        return (1 + self.slope) * exact + self.sigma * noise


@pytest.fixture
def student():
    """Make a student of a network, with a correction that is not measured yet."""

    def make(network: nn.Module, **options: str) -> Student:
        request = Request(Bits(32, 32), (0,))
        correction = NoiseCorrection(TIMES, 3, **options)
        return Student(network, None, FullPrecisionOptions(), request, correction)

    return make


def fit(student: Student, teacher, guidance: float, eta: float = 0.0) -> None:
    paths = Paths(STEPS, eta, guidance, images=5, batch=2)
    errors = sampled_noise_errors(student, teacher, paths, seed=3)
    assert tuple(errors) == TIMES
    assert all(error.images == 5 for error in errors.values())
    student.noise_correction.fit(errors)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_gain_is_undone_and_the_images_are_the_teachers(
    unconditional, conditional, make_protocol, student, labelled
):
    teacher = conditional if labelled else unconditional
    guidance = 3.0 if labelled else 1.0
    labels = {} if labelled else {"labels": "none"}
    protocol = make_protocol(steps=STEPS, guidance=guidance, **labels)
    own = student(Louder(teacher.unet, 0.3), bias="residual")
    fit(own, teacher, guidance)
    torch.testing.assert_close(own.noise_correction.slope, torch.full((STEPS,), 0.3))
    wanted = ddim_sample(teacher, protocol, range(3))
    found = ddim_sample(teacher.with_unet(own), protocol, range(3))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    loud = ddim_sample(teacher.with_unet(own.network), protocol, range(3))
    assert (found - wanted).norm() < 1e-2 * (loud - wanted).norm()


def test_the_sampler_takes_the_corrected_step(unconditional, make_protocol, student):
    """Step by step with the released formulas, at eta 1."""
    protocol = make_protocol(steps=STEPS, labels="none", guidance=1.0, eta=1.0)
    own = student(Louder(unconditional.unet, 0.1, 0.2))
    fit(own, unconditional, 1.0, eta=1.0)
    correction = own.noise_correction
    seen = []
    original = DDIM.step
    ddim = DDIM.from_schedule(unconditional.schedule, STEPS, 1.0)
    with pytest.MonkeyPatch.context() as patch:

        def step(self, x, eps, index, noise=None):
            out = original(self, x, eps, index, noise)
            seen.append((x, eps, index, noise, out))
            return out

        patch.setattr(DDIM, "step", step)
        ddim_sample(unconditional.with_unet(own), protocol, range(2))
    assert [index for _, _, index, *_ in seen] == [4, 3, 2, 1, 0]
    for x, eps, i, noise, out in seen:
        t = torch.full((2,), TIMES[i])
        raw = own.network(x, t)
        k, bias = correction.slope[i], correction.offset[i].view(1, 3, 1, 1)
        torch.testing.assert_close(eps, (raw - bias) / (1 + k))
        a, previous, sigma = ddim.alphas[i], ddim.alphas_prev[i], ddim.sigmas[i]
        c = (1 - previous - sigma**2).sqrt() - (previous * (1 - a) / a).sqrt()
        left = (sigma**2 - c**2 * correction.residual_std[i] ** 2).clamp(min=0)
        clean = (x - (1 - a).sqrt() * eps) / a.sqrt()
        expected = previous.sqrt() * clean + (1 - previous - left).sqrt() * eps
        torch.testing.assert_close(out, (expected + left.sqrt() * noise).float())


def test_a_correction_must_be_measured_and_fit(unconditional, make_protocol, student):
    own = student(Louder(unconditional.unet, 0.3))
    model = unconditional.with_unet(own)
    with pytest.raises(BenchError, match="never measured"):
        ddim_sample(model, make_protocol(steps=STEPS, labels="none"), [0])
    fit(own, unconditional, 1.0)
    with pytest.raises(BenchError, match="sampler takes 4"):
        ddim_sample(model, make_protocol(steps=4, labels="none"), [0])
