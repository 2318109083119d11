import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.sample import NO_LABEL, image_labels


@pytest.mark.parametrize(("images", "classes"), [(50, 10), (53, 10), (7, 10), (1000, 1)])
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_balanced_counts_differ_by_one_at_most(make_protocol, images, classes, order):
    labels = image_labels(make_protocol(images=images, order=order), classes)
    counts = torch.bincount(labels, minlength=classes)
    assert labels.dtype == torch.int64
    assert counts.sum() == images
    assert counts.max() - counts.min() <= (images % classes > 0)


def test_sorted_is_sorted_and_shuffled_is_a_permutation_of_it(make_protocol):
    for policy in ("balanced", "iid"):
        ordered = image_labels(make_protocol(images=200, labels=policy, order="sorted"), 10)
        shuffled = image_labels(make_protocol(images=200, labels=policy, order="shuffled"), 10)
        assert (ordered.diff() >= 0).all()
        assert not torch.equal(ordered, shuffled)
        assert torch.equal(ordered, shuffled.sort().values)


def test_labels_depend_on_the_protocol_only(make_protocol):
    wide = make_protocol(images=100, batch=50, shards=2)
    narrow = make_protocol(images=100, batch=1, shards=7, eta=1.0)
    for policy in ("balanced", "iid"):
        wide_labels = image_labels(make_protocol(**(wide.asdict() | {"labels": policy})), 10)
        narrow_labels = image_labels(make_protocol(**(narrow.asdict() | {"labels": policy})), 10)
        assert torch.equal(wide_labels, narrow_labels)


def test_another_seed_gives_other_labels(make_protocol):
    for policy in ("balanced", "iid"):
        first, second = (
            image_labels(make_protocol(images=100, labels=policy, seed=seed), 10) for seed in (0, 1)
        )
        assert not torch.equal(first, second)


def test_iid_labels_are_a_prefix_of_a_longer_set_and_uniform(make_protocol):
    short = image_labels(make_protocol(images=20, labels="iid"), 4)
    long = image_labels(make_protocol(images=4000, labels="iid"), 4)
    assert torch.equal(long[:20], short)
    # four standard deviations of a binomial count
    assert (torch.bincount(long) - 1000).abs().max() < 4 * (4000 * 0.25 * 0.75) ** 0.5


def test_unconditional_images_have_no_label(make_protocol):
    assert image_labels(make_protocol(labels="none"), None).tolist() == [NO_LABEL] * 11


@pytest.mark.parametrize(("policy", "classes"), [("none", 3), ("balanced", None), ("iid", None)])
def test_a_policy_that_does_not_fit_the_model_is_refused(make_protocol, policy, classes):
    with pytest.raises(BenchError, match="unconditional models"):
        image_labels(make_protocol(labels=policy), classes)
