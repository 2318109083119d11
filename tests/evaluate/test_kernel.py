import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kernel_mmd

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.kernel import kernel_distance
from hqdm_bench.evaluate.neighbours import precision_recall
from hqdm_bench.evaluate.overlap import measure_overlap


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def plain(generated, reference, weights=None):
    """The definition, with every pair in one matrix; weights count a generated image several times.

    Pairs of an image with itself are left out, also where it is counted twice.
    """
    x, y = generated.double().numpy(), reference.double().numpy()

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    w = np.ones(len(x)) if weights is None else weights
    pairs = np.outer(w, w) - np.diag(w**2)
    other = 1 - np.eye(len(y))
    within = (pairs * kernel(x, x)).sum() / pairs.sum()
    between = w @ kernel(x, y).mean(1) / w.sum()
    return within + (other * kernel(y, y)).sum() / other.sum() - 2 * between


def test_stored_oracle_value(arrays, expected):
    stored = expected["kid"]["full_unbiased_float64"]
    assert kernel_distance(arrays["gen"], arrays["ref"]) == pytest.approx(stored, abs=1e-12)


def test_the_mean_of_random_subsets_is_near_but_another_number(arrays, expected):
    found = kernel_distance(arrays["gen"], arrays["ref"])
    stored = expected["kid"]["torch_fidelity_20x500_seed2020"]
    gap = abs(found - stored["kernel_inception_distance_mean"])
    assert 1e-5 < gap < stored["kernel_inception_distance_std"] / 20**0.5


def test_torch_fidelity_on_sets_of_one_size():
    generated, reference = normal(60, 7).numpy(), 1.1 * normal(60, 7, seed=1).numpy()
    settings = {
        "kid_kernel": "poly",
        "kid_kernel_poly_degree": 3,
        "kid_kernel_poly_gamma": None,
        "kid_kernel_poly_coef0": 1,
    }
    oracle = kernel_mmd(generated.astype(np.float64), reference.astype(np.float64), **settings)
    found = kernel_distance(torch.from_numpy(generated), torch.from_numpy(reference))
    assert found == pytest.approx(oracle, rel=1e-10)


@pytest.mark.parametrize("block", [1, 7, 64, 2048])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_blocks_and_the_place_of_the_origin_are_accounted_for(block, offset):
    generated, reference = normal(50, 5) + offset, normal(40, 5, seed=1) + 0.9 * offset
    found = kernel_distance(generated, reference, block)
    assert found == pytest.approx(plain(generated, reference), rel=1e-9, abs=1e-12)


def test_two_points_a_side_by_hand():
    generated = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    reference = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    # k = (x'y / 2 + 1)^3: 1 within both sets; 8 and 1 between them
    assert kernel_distance(generated, reference) == pytest.approx(1 + 1 - 2 * 4.5, rel=1e-12)


def test_no_bias_where_the_distributions_are_equal():
    """The mean over many small samples is zero within its error; a V-statistic's is not."""
    found = [
        kernel_distance(normal(12, 4, seed), normal(15, 4, 10_000 + seed)) for seed in range(300)
    ]
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found)) < 3 * error
    assert error < 0.05  # with pairs of an image with itself the mean would be about 1.5


def test_one_pass_gives_what_the_single_functions_give(arrays):
    generated, reference = arrays["gen"][:700], arrays["ref"][:500]
    draws = torch.randint(700, (3, 700), generator=torch.Generator().manual_seed(0))
    counts = torch.stack([torch.bincount(row, minlength=700) for row in draws])
    weights = torch.cat([torch.ones(1, 700), counts]).T.double()
    for block in (100, 2048):
        found = measure_overlap(generated, reference, 3, weights=weights, block=block)
        shares = (found.in_reference.double().mean(), found.in_generated.double().mean())
        assert tuple(map(float, shares)) == precision_recall(generated, reference, 3)
        wanted = [plain(generated, reference, weights[:, b].numpy()) for b in range(4)]
        assert found.kernel.tolist() == pytest.approx(wanted, abs=1e-8)
    assert measure_overlap(generated, reference, 3, kernel=False).kernel is None


def test_refusals():
    with pytest.raises(BenchError, match="needs two generated images; there are 1"):
        kernel_distance(normal(1, 3), normal(5, 3))
    with pytest.raises(BenchError, match="needs two reference images; there are 0"):
        kernel_distance(normal(5, 3), normal(0, 3))
    with pytest.raises(BenchError, match="same extractor"):
        kernel_distance(normal(5, 3), normal(5, 4))
    with pytest.raises(BenchError, match="not finite"):
        kernel_distance(torch.full((5, 3), float("inf")), normal(5, 3))
