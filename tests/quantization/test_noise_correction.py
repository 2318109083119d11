"""The correction of quantization noise, against synthetic noise and the plain formulas."""

import math

import pytest
import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models import DDIM, NoiseSchedule
from hqdm_bench.quantization import (
    NoiseCorrection,
    NoiseError,
    error_noise_gain,
    reduced_sigmas,
)

SCHEDULE = NoiseSchedule(0.0015, 0.0195)
TIMES = (1, 251, 501, 751)
SHAPE = (6, 3, 16, 16)


def pair(
    generator: torch.Generator, slope: float = 0.2, sigma: float = 0.05, shape: tuple = SHAPE
) -> tuple[Tensor, Tensor]:
    """Predictions with a known k, bias by channel and residual."""
    exact = torch.randn(shape, generator=generator, dtype=torch.float64)
    bias = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64).view(1, 3, 1, 1)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    return exact, (1 + slope) * exact + bias + sigma * noise


def measured(*pairs: tuple[Tensor, Tensor]) -> NoiseError:
    error = NoiseError()
    for exact, quantized in pairs:
        error.add(exact, quantized)
    return error


def fitted(pairs: list[tuple[Tensor, Tensor]], **options: str) -> NoiseCorrection:
    correction = NoiseCorrection(TIMES, 3, **options).double()
    correction.fit({t: measured(one) for t, one in zip(TIMES, pairs, strict=True)})
    return correction


def test_known_slope_bias_and_deviation_are_recovered(generator: torch.Generator) -> None:
    exact, quantized = pair(generator, shape=(64, 3, 32, 32))
    error = measured((exact, quantized))
    assert error.images == 64
    assert error.slope == pytest.approx(0.2, abs=2e-3)
    torch.testing.assert_close(
        error.channel_error - error.slope * error.channel_exact,
        torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64),
        atol=1e-3,
        rtol=0,
    )
    # Within an image the biases of the channels are part of the deviation, as released.
    spread = torch.tensor([0.1, -0.2, 0.3]).double().var(unbiased=False)
    assert error.residual_std(error.slope) == pytest.approx(
        math.sqrt(0.05**2 + float(spread)), rel=1e-2
    )


def test_statistics_are_those_of_stored_predictions(generator: torch.Generator) -> None:
    """In one pass over batches what the plain formulas give for everything at once."""
    pairs = [pair(generator), pair(generator, slope=0.5, sigma=0.3)]
    exact, quantized = (torch.cat(part) for part in zip(*pairs, strict=True))
    error, d = measured(*pairs), quantized - exact
    x, y = exact.flatten(), d.flatten()
    stacked = torch.stack([x, torch.ones_like(x)], 1)
    slope = torch.linalg.lstsq(stacked, y[:, None]).solution[0].item()
    assert error.slope == pytest.approx(slope, rel=1e-12)
    torch.testing.assert_close(error.channel_error, d.mean((0, 2, 3)), rtol=1e-12, atol=0)
    torch.testing.assert_close(error.channel_exact, exact.mean((0, 2, 3)), rtol=1e-12, atol=1e-15)
    for k in (0.0, slope):
        residual = quantized - (1 + k) * exact
        expected = torch.stack([image.std() for image in residual]).mean().item()
        assert error.residual_std(k) == pytest.approx(expected, rel=1e-12)


def test_the_correction_inverts_a_gain_and_a_bias(generator: torch.Generator) -> None:
    """With the residual's bias exactly; with the error's, k times the mean of eps is left."""
    pairs = [pair(generator, sigma=0.0) for _ in TIMES]
    for bias in ("residual", "error"):
        correction = fitted(pairs, bias=bias)
        assert correction.calibrated
        for t, (exact, quantized) in zip(TIMES, pairs, strict=True):
            row = TIMES.index(t)
            # One line through all channels: their biases move k a little off 0.2.
            k = float(correction.slope[row])
            d = quantized - exact
            centre = d.mean((0, 2, 3))
            if bias == "residual":
                centre = centre - k * exact.mean((0, 2, 3))
            expected = (quantized - centre.view(1, 3, 1, 1)) / (1 + k)
            torch.testing.assert_close(correction.correct(quantized, t), expected)
            left = (correction.correct(quantized, t) - exact).mean((0, 2, 3))
            known = -k / (1 + k) * exact.mean((0, 2, 3)) if bias == "error" else 0 * left
            torch.testing.assert_close(left, known, rtol=1e-9, atol=1e-12)


def test_one_channel_is_inverted_exactly(generator: torch.Generator) -> None:
    exact = torch.randn(4, 1, 8, 8, generator=generator, dtype=torch.float64)
    correction = NoiseCorrection((1,), 1, bias="residual").double()
    correction.fit({1: measured((exact, 1.3 * exact + 0.7))})
    torch.testing.assert_close(correction.correct(1.3 * exact + 0.7, 1), exact)
    assert correction.residual_std.item() == pytest.approx(0, abs=1e-7)


def test_a_negative_slope_counts_as_zero(generator: torch.Generator) -> None:
    exact, quantized = pair(generator, slope=-0.4)
    correction = fitted([(exact, quantized)] * 4)
    assert correction.slope.tolist() == [0] * 4
    expected = torch.stack([image.std() for image in quantized - exact]).mean().item()
    assert correction.residual_std[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_the_schedule_equals_the_formula(generator: torch.Generator, eta: float) -> None:
    ddim = DDIM.from_schedule(SCHEDULE, 4, eta)
    correction = fitted([pair(generator, sigma=s) for s in (0.01, 0.3, 1.0, 30.0)])
    reduced = correction.schedule(ddim)
    for i in range(4):
        a, previous, sigma = (float(v[i]) for v in (ddim.alphas, ddim.alphas_prev, ddim.sigmas))
        c = math.sqrt(1 - previous - sigma**2) - math.sqrt(previous * (1 - a) / a)
        left = sigma**2 - (c * float(correction.residual_std[i])) ** 2
        assert reduced.sigmas[i].item() == pytest.approx(math.sqrt(max(0, left)), rel=1e-9)
        assert error_noise_gain(ddim)[i].item() == pytest.approx(c)
    assert (reduced.sigmas[:2] > 0).any()
    assert reduced.sigmas[3] == 0
    assert (reduced.sigmas <= ddim.sigmas).all()


def test_a_step_with_the_corrected_schedule(generator: torch.Generator) -> None:
    """As released the direction term has the reduced deviation, too; in the text it has not."""
    ddim = DDIM.from_schedule(SCHEDULE, 4, 1.0)
    pairs = [pair(generator, sigma=0.3) for _ in TIMES]
    x, eps, noise = torch.randn(3, *SHAPE, generator=generator, dtype=torch.float64)
    for direction in ("follows", "kept"):
        reduced = fitted(pairs, direction=direction).schedule(ddim)
        sigmas = fitted(pairs).schedule(ddim).sigmas
        i = 2
        a, previous = float(ddim.alphas[i]), float(ddim.alphas_prev[i])
        inside = float((sigmas if direction == "follows" else ddim.sigmas)[i])
        clean = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
        expected = math.sqrt(previous) * clean + math.sqrt(1 - previous - inside**2) * eps
        expected += float(sigmas[i]) * noise
        assert 0 < sigmas[i] < ddim.sigmas[i]
        torch.testing.assert_close(reduced.step(x, eps, i, noise), expected)


@pytest.mark.parametrize("direction", ["follows", "kept"])
def test_the_variance_part_is_without_effect_at_eta_zero(
    generator: torch.Generator, direction: str
) -> None:
    ddim = DDIM.from_schedule(SCHEDULE, 4, 0.0)
    reduced = fitted([pair(generator) for _ in TIMES], direction=direction).schedule(ddim)
    assert reduced.sigmas.tolist() == [0] * 4
    x, eps = torch.randn(2, *SHAPE, generator=generator)
    for i in range(4):
        assert torch.equal(reduced.step(x, eps, i), ddim.step(x, eps, i))


def test_no_residual_leaves_the_schedule() -> None:
    ddim = DDIM.from_schedule(SCHEDULE, 4, 1.0)
    torch.testing.assert_close(reduced_sigmas(ddim, torch.zeros(4)), ddim.sigmas)


def test_rows_are_found_by_the_timestep(generator: torch.Generator) -> None:
    correction = fitted([pair(generator, slope=k) for k in (0.0, 0.1, 0.2, 0.3)])
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    before = {t: correction.correct(x, t) for t in reversed(TIMES)}
    correction.slope[1] += 0.5
    assert [t for t in TIMES if not torch.equal(before[t], correction.correct(x, t))] == [251]


def test_mistakes_are_explained(generator: torch.Generator) -> None:
    correction = fitted([pair(generator) for _ in TIMES])
    with pytest.raises(BenchError, match=r"no row for timestep 2 "):
        correction.correct(torch.zeros(SHAPE), 2)
    with pytest.raises(BenchError, match=r"measured at 4 timesteps and the sampler takes 5"):
        correction.schedule(DDIM.from_schedule(SCHEDULE, 5, 1.0))
    fresh = NoiseCorrection(TIMES, 3)
    assert not fresh.calibrated
    with pytest.raises(BenchError, match=r"at timestep 251, 501, 751"):
        fresh.fit({1: measured(pair(generator))})
    with pytest.raises(BenchError, match="no pair"):
        _ = NoiseError().slope
    with pytest.raises(BenchError, match="pairs of one shape"):
        NoiseError().add(torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 4, 4))


def test_statistics_are_the_released_ones() -> None:
    """Constants: `analyze_error.py` of ziplab/PTQD (6b190f9) on the same numbers."""

    def wave(rate: float) -> Tensor:
        i = torch.arange(8 * 3 * 36, dtype=torch.float64)
        waves = torch.sin(i * rate) + 0.5 * torch.cos(i * i * 0.01 * rate)
        return waves.reshape(8, 3, 6, 6)

    exact, bias = wave(0.61), torch.tensor([0.02, -0.03, 0.01]).double().view(1, 3, 1, 1)
    error = 0.15 * exact + 0.05 * wave(1.9) + bias
    error[::2] -= 0.5 * exact[::2]
    errors = {
        t: measured((exact[row::2], (exact + error)[row::2])) for row, t in enumerate((1, 501))
    }
    assert errors[1].slope == pytest.approx(-0.34949514740307436, rel=1e-5)
    assert errors[501].slope == pytest.approx(0.14542925028955866, rel=1e-5)
    correction = NoiseCorrection((1, 501), 3).double()
    correction.fit(errors)
    offsets = [
        [-0.023862866889024843, 7.299737494198327e-05, 0.006986899866683935],
        [0.007357892213864852, -0.022292710036087484, -0.00029247941725646365],
    ]
    torch.testing.assert_close(
        correction.offset, torch.tensor(offsets, dtype=torch.float64), rtol=1e-5, atol=1e-8
    )
    spread = torch.tensor([0.292616094772, 0.044392085790 / 1.1454283519996536])
    torch.testing.assert_close(correction.residual_std, spread.double(), rtol=1e-5, atol=0)
