import numpy as np
import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import write_tensors
from hqdm_bench.evaluate.bootstrap import (
    counts_of,
    draw_images,
    frechet_replicates,
    inception_score_replicates,
    read_replicates,
    share_replicates,
    write_replicates,
)
from hqdm_bench.evaluate.class_scores import inception_score
from hqdm_bench.evaluate.frechet import FrechetTarget, frechet_distance
from hqdm_bench.evaluate.intervals import basic_interval, interval_at_count
from hqdm_bench.evaluate.moments import Gaussian, Moments

DOUBLE = torch.float64


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def standard(d):
    return Gaussian(torch.zeros(d, dtype=DOUBLE), torch.eye(d, dtype=DOUBLE))


def test_draws_depend_on_nothing_but_their_numbers():
    draws = draw_images(50, 6)
    assert draws.shape == (6, 50)
    assert torch.equal(draw_images(50, 9)[:6], draws)
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draw_images(50, 6, "reference"), draws)
    assert not torch.equal(draw_images(51, 6)[:, :50], draws)
    assert draw_images(50, 0).shape == (0, 50)
    every = draw_images(50, 400)
    assert counts_of(every).sum(1).tolist() == [50] * 400
    # multinomial: mean 1, variance 1 - 1/50; of 20 000 draws
    assert counts_of(every).var().item() == pytest.approx(1 - 1 / 50, rel=0.05)
    assert counts_of(every).mean(0).sub(1).abs().max() < 5 * (0.98 / 400) ** 0.5


@pytest.mark.parametrize(("n", "d"), [(60, 7), (40, 40), (25, 60)])
def test_a_replicate_is_the_distance_of_the_drawn_images(n, d):
    """By covariances where there are more images than dimensions, by inner products elsewhere."""
    points = (normal(n, d) * 2 + 5).float()
    reference = Moments.of(normal(3 * d, d, seed=1) * 1.5 + 4).gaussian
    draws = draw_images(n, 4)
    wanted = [frechet_distance(points[row], reference) for row in draws]
    found = frechet_replicates(points, draws, FrechetTarget(reference))
    assert found.tolist() == pytest.approx(wanted, rel=1e-6)
    assert len(set(wanted)) == 4


@pytest.mark.parametrize("split_size", [30, 31, 100])
def test_a_replicate_is_the_score_of_the_drawn_images(split_size):
    logits = (3 * normal(90, 6)).float()
    draws = draw_images(90, 4)
    shuffled = inception_score_replicates(logits, draws, split_size, "shuffled")
    wanted = [inception_score(logits[row], split_size) for row in draws]
    assert shuffled.tolist() == pytest.approx(wanted, rel=1e-12)
    in_file_order = inception_score_replicates(logits, draws, split_size, "file")
    wanted = [inception_score(logits[row.sort().values], split_size) for row in draws]
    assert in_file_order.tolist() == pytest.approx(wanted, rel=1e-12)


def test_replicates_in_file_order_stay_collapsed_for_sorted_images():
    logits = 20 * torch.eye(10, dtype=DOUBLE).repeat_interleave(10, 0)
    draws = draw_images(100, 5)
    assert inception_score_replicates(logits, draws, 10, "file").max() < 2.5
    assert inception_score_replicates(logits, draws, 10, "shuffled").min() > 4


def test_shares():
    inside = torch.arange(10) < 4
    draws = draw_images(10, 2000)
    found = share_replicates(inside, draws)
    assert found[0] == inside[draws[0]].double().mean()
    assert found.std().item() == pytest.approx((0.4 * 0.6 / 10) ** 0.5, rel=0.1)


def influence_error(points, reference):
    """Standard error of a Frechet distance by its influence function.

    The derivative in the direction of one more point x is 2 (m - r)'(x - m) + (x - m)'A(x - m)
    - tr A S with A = I - R^1/2 (R^1/2 S R^1/2)^-1/2 R^1/2.
    """
    own = Moments.of(points).gaussian
    root = FrechetTarget(reference).root
    values, vectors = torch.linalg.eigh(root @ own.covariance @ root)
    inner = (vectors * values.rsqrt()) @ vectors.T
    slope = torch.eye(len(root), dtype=DOUBLE) - root @ inner @ root
    centred = points - own.mean
    influence = 2 * centred @ (own.mean - reference.mean) + ((centred @ slope) * centred).sum(1)
    return float(influence.std() / len(points) ** 0.5)


def test_the_standard_error_is_that_of_the_influence_function():
    points = normal(2000, 8) @ torch.diag(torch.linspace(0.6, 1.5, 8, dtype=DOUBLE)) + 0.3
    draws = draw_images(2000, 200)
    found = frechet_replicates(points, draws, FrechetTarget(standard(8))).std()
    assert found.item() == pytest.approx(influence_error(points, standard(8)), rel=0.15)


def test_the_basic_interval_holds_the_truth_and_the_percentile_interval_does_not():
    """8 dimensions, 100 images, a reference known exactly: c / N is 1.5 standard errors."""
    scale = torch.linspace(0.7, 1.3, 8, dtype=DOUBLE)
    mean = torch.full((8,), 0.2, dtype=DOUBLE)
    truth = frechet_distance(Gaussian(mean, torch.diag(scale**2)), standard(8))
    target, draws = FrechetTarget(standard(8)), draw_images(100, 100)
    basic = percentile = 0
    for seed in range(200):
        points = normal(100, 8, seed) * scale + mean
        value = frechet_distance(points, standard(8))
        replicates = frechet_replicates(points, draws, target).numpy()
        low, high = basic_interval(value, replicates)
        basic += low <= truth <= high
        low, high = np.quantile(replicates, [0.025, 0.975])
        percentile += low <= truth <= high
    assert 0.9 <= basic / 200 <= 1
    assert percentile / 200 < 0.3


def test_the_interval_at_the_count_holds_the_expected_distance_of_that_many_images():
    """As above: the mean over other sets of 100 images, which is c / N above the truth."""
    scale = torch.linspace(0.7, 1.3, 8, dtype=DOUBLE)
    reference, target, draws = standard(8), FrechetTarget(standard(8)), draw_images(100, 100)
    sets = [normal(100, 8, seed) * scale + 0.2 for seed in range(600)]
    values = [frechet_distance(points, reference) for points in sets]
    expected, held, textbook = sum(values[200:]) / 400, 0, 0
    for points, value in zip(sets[:200], values, strict=False):
        replicates = frechet_replicates(points, draws, target).numpy()
        low, high = interval_at_count(value, replicates)
        assert low < value < high
        held += low <= expected <= high
        low, high = basic_interval(value, replicates)
        textbook += low <= expected <= high
    assert 0.9 <= held / 200 <= 1
    assert textbook < held


def test_without_a_bias_of_drawing_both_intervals_agree():
    replicates = np.random.default_rng(0).normal(size=101)
    value = float(replicates.mean())
    assert interval_at_count(value, replicates) == pytest.approx(basic_interval(value, replicates))


def test_a_paired_difference_has_a_much_smaller_error():
    """Two students of one teacher: the same images but for a small disturbance."""
    shared = normal(500, 6)
    first, second = (
        shared * 1.2 + 0.02 * normal(500, 6, 1),
        shared * 1.25 + 0.02 * normal(500, 6, 2),
    )
    target, draws = FrechetTarget(standard(6)), draw_images(500, 200)
    one, other = (frechet_replicates(points, draws, target) for points in (first, second))
    apart = (one.var() + other.var()).sqrt()
    assert (one - other).std() < 0.3 * apart


def test_files_round_trip(tmp_path):
    path = tmp_path / "replicates.safetensors"
    written = {"fid": normal(3, 1)[:, 0], "precision": torch.tensor([0.5, 0.25, 0.75])}
    write_replicates(path, written, 100)
    read = read_replicates(path)
    assert read.keys() == written.keys()
    assert all(value.dtype == DOUBLE and value.shape == (3,) for value in read.values())
    assert torch.equal(read["fid"], written["fid"])
    write_tensors(path, {"fid": torch.zeros(3)}, {})
    with pytest.raises(BenchError, match="holds no bootstrap replicates"):
        read_replicates(path)
    write_tensors(
        path, {"fid": torch.zeros(3), "is": torch.zeros(2)}, {"kind": "bootstrap replicates"}
    )
    with pytest.raises(BenchError, match="holds no bootstrap replicates"):
        read_replicates(path)
