import math

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.class_scores import inception_score


@pytest.fixture(scope="module")
def logits(arrays):
    return arrays["gen"] @ arrays["W"]


@pytest.fixture(scope="module")
def by_class(logits):
    return logits[logits.argmax(1).argsort(stable=True)]


@pytest.mark.parametrize(
    ("split_size", "entry"),
    [(5000, "split_5000_one_chunk"), (500, "split_500_file_order"), (200, "split_200_file_order")],
)
def test_stored_oracle_values(logits, expected, split_size, entry):
    values = expected["inception_score"][entry]
    found = inception_score(logits, split_size)
    assert found == pytest.approx(values["adm_f32"], rel=0, abs=values["abs_tol"])
    assert found == pytest.approx(values["torch_fidelity_f64"], rel=0, abs=1e-6)


@pytest.mark.parametrize("splits", [1, 4, 10])
def test_torch_fidelity_on_the_same_logits(logits, splits):
    oracle = isc_features_to_metric(logits, splits=splits, shuffle=False)["inception_score_mean"]
    assert inception_score(logits, 2000 // splits) == pytest.approx(oracle, rel=1e-9)


def test_sorted_images_collapse_and_a_shuffle_repairs_it(logits, by_class, expected):
    stored = expected["inception_score"]
    entry = stored["class_sorted_split_200"]
    assert inception_score(by_class, 200) == pytest.approx(entry["adm_f32"], abs=1e-4)
    assert inception_score(by_class, 500) == pytest.approx(
        stored["class_sorted_split_500_adm"], abs=1e-4
    )
    repaired = inception_score(by_class, 200, "shuffled")
    assert repaired == pytest.approx(inception_score(logits, 200), abs=0.1)
    assert repaired == inception_score(by_class, 200, "shuffled")  # always the same permutation
    assert repaired != inception_score(logits, 200)


def test_a_short_last_split_counts_like_the_others(logits):
    parts = [inception_score(logits[rows], 2000) for rows in (slice(0, 1500), slice(1500, None))]
    assert inception_score(logits, 1500) == pytest.approx(sum(parts) / 2, rel=1e-12)


def test_closed_forms():
    sure = 1000 * torch.eye(8).repeat(3, 1)
    assert inception_score(sure, 24) == pytest.approx(8, rel=1e-12)  # as many as classes
    assert inception_score(torch.zeros(10, 8), 10) == pytest.approx(1, rel=1e-12)  # knows nothing
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    divergence = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert inception_score(p.log(), 2) == pytest.approx(math.exp(divergence), rel=1e-12)


def test_a_constant_added_to_the_logits_of_an_image_does_not_matter(logits):
    shifted = logits.double() + torch.linspace(-50, 50, len(logits), dtype=torch.float64)[:, None]
    assert inception_score(shifted, 500) == pytest.approx(inception_score(logits, 500), rel=1e-10)


@pytest.mark.parametrize(("n", "split_size"), [(0, 5), (5, 0), (5, -1)])
def test_refusals(n, split_size):
    with pytest.raises(BenchError, match="must be positive"):
        inception_score(torch.zeros(n, 3), split_size)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(value):
    logits = torch.zeros(6, 3)
    logits[4, 1] = value
    with pytest.raises(BenchError, match="not finite"):
        inception_score(logits, 2)


def test_a_class_of_no_probability_is_fine():
    certain = torch.full((4, 2), float("-inf"))
    certain[[0, 1, 2, 3], [0, 1, 0, 1]] = 0
    assert inception_score(certain) == pytest.approx(2, rel=1e-12)


def test_another_order_is_refused():
    with pytest.raises(BenchError, match="'file' or 'shuffled', not 'sorted'"):
        inception_score(torch.zeros(4, 2), 2, "sorted")
