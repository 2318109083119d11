import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.frechet import frechet_distance
from hqdm_bench.evaluate.moments import Moments, streaming_moments


def distance(a, b):
    return frechet_distance(Moments.of(a), Moments.of(b))


def hwc(maps):
    return maps.permute(0, 2, 3, 1).flatten(1)


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_moments_are_those_of_numpy(arrays):
    points = arrays["gen"].numpy().astype(np.float64)
    found = Moments.of(arrays["gen"])
    np.testing.assert_allclose(found.mean, points.mean(0), rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(points, rowvar=False), rtol=0, atol=1e-13)


@pytest.mark.parametrize("sizes", [1, 7, 64, 1999])
def test_merged_batches_equal_all_at_once(arrays, sizes):
    direct = Moments.of(arrays["gen"])
    streamed = streaming_moments(arrays["gen"].split(sizes))
    assert streamed.count == direct.count == 2000
    torch.testing.assert_close(streamed.mean, direct.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(streamed.covariance, direct.covariance, rtol=0, atol=1e-12)


def test_a_large_offset_costs_no_accuracy():
    points = normal(2000, 5).double()
    shifted = streaming_moments((points + 1e6).split(100))
    # the points themselves are rounded to 1e-10 there; sums of squares would be off by 1e-4
    torch.testing.assert_close(shifted.covariance, Moments.of(points).covariance, rtol=0, atol=1e-8)


def test_stored_oracle_values(arrays, expected):
    fid = distance(arrays["gen"], arrays["ref"])
    rank_deficient = distance(arrays["small_gen"], arrays["small_ref"])
    sfid = distance(hwc(arrays["sp_gen"]), hwc(arrays["sp_ref"]))
    for found, entry in (
        (fid, expected["fid"]),
        (rank_deficient, expected["fid_rank_deficient"]),
        (sfid, expected["sfid_hwc_order"]),
    ):
        for source in ("adm", "torch_fidelity"):
            assert found == pytest.approx(entry[source], rel=0, abs=entry["abs_tol"])
    assert fid == pytest.approx(expected["fid"]["float64"], rel=0, abs=1e-9)
    # one spatial direction has no variance; its rounding enters under a square root
    assert sfid == pytest.approx(expected["sfid_hwc_order"]["float64"], rel=0, abs=1e-7)
    wrong = distance(arrays["sp_gen"].flatten(1), hwc(arrays["sp_ref"]))
    assert wrong == pytest.approx(expected["sfid_if_gen_is_flattened_CHW"]["adm"], abs=1e-3)


@pytest.mark.parametrize("shape", [(300, 16), (500, 40)])
def test_torch_fidelity_on_the_same_features(shape):
    a = normal(*shape).double()
    b = normal(shape[0] + 50, shape[1], seed=1).double() @ torch.diag(
        torch.linspace(0.2, 2, shape[1], dtype=torch.float64)
    )
    oracle = fid_statistics_to_metric(
        fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False
    )
    assert distance(a, b) == pytest.approx(oracle["frechet_inception_distance"], rel=1e-10)


def exact(mean, covariance):
    """Moments given directly instead of estimated."""
    double = torch.float64
    return Moments(
        101, torch.tensor(mean, dtype=double), 100 * torch.tensor(covariance, dtype=double)
    )


def test_known_gaussians():
    a = exact([1.0, 2.0, 0.0], [[4.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 1.0]])
    b = exact([0.0, 0.0, 2.0], [[1.0, 0.0, 0.0], [0.0, 16.0, 0.0], [0.0, 0.0, 0.0]])
    # commuting covariances: |m|^2 + sum of (s_a - s_b)^2 = 9 + 1 + 1 + 1
    assert frechet_distance(a, b) == pytest.approx(12.0, rel=1e-12)


def test_two_dimensional_covariances_that_do_not_commute():
    """For 2x2 matrices tr (AB)^1/2 = sqrt(tr AB + 2 sqrt(det AB))."""
    A, B = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.4], [-0.4, 3.0]])
    root = np.sqrt(np.trace(A @ B) + 2 * np.sqrt(np.linalg.det(A @ B)))
    closed_form = np.trace(A) + np.trace(B) - 2 * root
    found = frechet_distance(exact([0.0, 0.0], A.tolist()), exact([0.0, 0.0], B.tolist()))
    assert found == pytest.approx(closed_form, rel=1e-12)


def test_symmetric_and_zero_for_equal_sets(arrays):
    there, back = distance(arrays["gen"], arrays["ref"]), distance(arrays["ref"], arrays["gen"])
    assert there == pytest.approx(back, rel=1e-10)
    assert distance(arrays["gen"], arrays["gen"]) == pytest.approx(0, abs=1e-9)
    assert distance(arrays["small_gen"], arrays["small_gen"]) == pytest.approx(0, abs=1e-4)


def test_refusals():
    with pytest.raises(BenchError, match="same extractor"):
        distance(normal(5, 3), normal(5, 4))
    with pytest.raises(BenchError, match="at least two"):
        distance(normal(1, 3), normal(5, 3))
    with pytest.raises(BenchError, match="not finite"):
        distance(torch.full((5, 3), float("nan")), normal(5, 3))
    with pytest.raises(BenchError, match="empty"):
        streaming_moments([])
    with pytest.raises(BenchError, match="non-empty"):
        Moments.of(torch.empty(0, 3))
