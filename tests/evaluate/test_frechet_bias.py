import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.frechet import FrechetTarget, frechet_distance
from hqdm_bench.evaluate.frechet_bias import bias_constant, fid_infinity, frechet_bias
from hqdm_bench.evaluate.moments import Gaussian, Moments

DOUBLE = torch.float64


def gaussian(scales):
    scales = torch.as_tensor(scales, dtype=DOUBLE)
    return Gaussian(torch.zeros_like(scales), torch.diag(scales**2))


def sample(n, of, random):
    return torch.randn(n, len(of.mean), generator=random, dtype=DOUBLE) @ of.covariance.sqrt()


def test_closed_forms():
    # d equal eigenvalues l: 5/4 d l + 1/2 d^2 l / 2
    assert bias_constant(3 * torch.eye(8, dtype=DOUBLE)) == pytest.approx(3 * (10 + 16), rel=1e-12)
    # eigenvalues 1 and 3: pairs 1/2, 3/2 and twice 3/4
    two = torch.diag(torch.tensor([1.0, 3.0], dtype=DOUBLE))
    assert bias_constant(two) == pytest.approx(1.25 * 4 + 0.5 * 3.5, rel=1e-12)
    flat = torch.diag(torch.tensor([1.0, 3.0, 0.0, 0.0], dtype=DOUBLE))
    assert bias_constant(flat) == pytest.approx(1.25 * 4 + 0.5 * 3.5, rel=1e-12)
    random = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    turn = torch.linalg.qr(random).Q
    square = torch.diag(torch.arange(1.0, 6, dtype=DOUBLE))
    assert bias_constant(turn @ square @ turn.T) == pytest.approx(bias_constant(square), rel=1e-12)


@pytest.mark.parametrize("images", [200, 800])
def test_the_mean_distance_of_many_samples_of_the_reference(images):
    """Eigenvalues spread over two decades; second order is within 5 % from 200 images on."""
    reference = gaussian(torch.logspace(-1, 0, 12))
    target, random = FrechetTarget(reference), torch.Generator().manual_seed(1)
    found = torch.tensor(
        [
            target.distance(Moments.of(sample(images, reference, random)).gaussian)
            for _ in range(400)
        ]
    )
    error = found.std() / 20
    assert found.mean().item() == pytest.approx(
        frechet_bias(reference, images), rel=0.05, abs=3 * float(error)
    )
    assert error < 0.03 * found.mean()


def test_the_extrapolation_removes_the_bias():
    reference = gaussian(torch.linspace(0.5, 1.5, 16))
    shifted = Gaussian(reference.mean + 0.1, 1.2 * reference.covariance)
    truth = frechet_distance(shifted, reference)
    random = torch.Generator().manual_seed(2)
    found, plain = [], []
    for _ in range(20):
        points = sample(1000, shifted, random) + 0.1
        fit = fid_infinity(points, reference)
        found.append(fit.intercept)
        plain.append(fit.distances[-1])
    assert plain[-1] == pytest.approx(frechet_distance(points, reference), rel=1e-9)
    found, plain = torch.tensor(found), torch.tensor(plain)
    error = float(found.std()) / 20**0.5
    assert abs(found.mean() - truth) < 3 * error
    bias = frechet_bias(shifted, 1000)
    assert (plain - found).mean().item() == pytest.approx(bias, rel=0.25)
    assert bias > 4 * error  # or the two could not be told apart
    assert fit.sizes == tuple(round(1000 * (0.1 + 0.9 * i / 14)) for i in range(15))
    assert fid_infinity(points, reference) == fit


def test_a_line_in_the_inverse_number_is_found_exactly(monkeypatch):
    """Distances that are 2 + 30 / N by construction."""
    from hqdm_bench.evaluate import frechet_bias as module

    class Target:
        def __init__(self, reference):
            pass

        def distance(self, gaussian):
            return 2 + 30 / gaussian

    monkeypatch.setattr(module, "FrechetTarget", Target)
    monkeypatch.setattr(module, "streaming_moments", lambda parts: Count(len(parts[0])))
    fit = fid_infinity(torch.zeros(500, 2), torch.zeros(5, 2))
    assert (fit.intercept, fit.slope) == pytest.approx((2, 30), rel=1e-9)


class Count:
    def __init__(self, count):
        self.gaussian = count


def test_too_few_images():
    with pytest.raises(BenchError, match="at least two subsets and 20 images"):
        fid_infinity(torch.zeros(19, 2), gaussian([1.0, 1.0]))
    with pytest.raises(BenchError, match="at least two subsets"):
        fid_infinity(torch.zeros(100, 2), gaussian([1.0, 1.0]), sizes=1)
