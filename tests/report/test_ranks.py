"""Ranks: only what the paired intervals tell apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hqdm_bench.catalogue import Bits
from hqdm_bench.report.best import leaders
from hqdm_bench.report.estimates import Draws, Sample
from hqdm_bench.report.ranks import ranks


def seeds(*values: float) -> dict[int, Draws]:
    return {seed: Draws(value) for seed, value in enumerate(values)}


def test_rows_that_are_told_apart_have_one_place_each() -> None:
    samples = {
        "worst": seeds(3.0, 3.1, 2.9),
        "best": seeds(1.0, 1.1, 0.9),
        "middle": seeds(2.0, 2.1, 1.9),
    }
    found = ranks(samples, "fid")
    assert {name: str(rank) for name, rank in found.items()} == {
        "worst": "3",
        "best": "1",
        "middle": "2",
    }
    upwards = ranks(samples, "psnr_median")  # higher is better
    assert {name: rank.first for name, rank in upwards.items()} == {
        "worst": 1,
        "best": 3,
        "middle": 2,
    }


def test_rows_that_are_not_told_apart_share_places() -> None:
    samples = {
        "behind": seeds(9.0, 9.1, 8.9),
        "left": seeds(1.0, 2.0, 3.0),
        "right": seeds(1.1, 1.8, 3.1),  # differences 0.1, -0.2, 0.1
        "nothing": {},
    }
    found = ranks(samples, "fid")
    assert str(found["left"]) == str(found["right"]) == "1 to 2"
    assert str(found["behind"]) == "3"
    assert "nothing" not in found


def test_a_row_without_rivals_has_no_rank() -> None:
    assert ranks({"alone": seeds(1.0, 1.1, 0.9), "nothing": {}}, "fid") == {}


def test_the_difference_is_paired() -> None:
    """The two overlap by far, and every seed says the same of them."""
    samples = {"left": seeds(1.0, 5.0, 9.0), "right": seeds(1.1, 5.11, 9.09)}
    assert {name: str(rank) for name, rank in ranks(samples, "fid").items()} == {
        "left": "1",
        "right": "2",
    }


def test_one_seed_is_ranked_by_its_replicates_and_without_them_not_at_all() -> None:
    noise = np.linspace(-1, 1, 201)
    pairs: dict[str, Sample] = {"a": {0: Draws(3.0, 3 + noise)}, "b": {0: Draws(3.5, 3.5 + noise)}}
    assert str(ranks(pairs, "fid")["b"]) == "2"
    bare: dict[str, Sample] = {"a": {0: Draws(3.0)}, "b": {0: Draws(9.0)}}
    assert {str(rank) for rank in ranks(bare, "fid").values()} == {"1 to 2"}


@pytest.mark.parametrize("seed", range(4))
def test_every_order_that_the_intervals_allow_is_within_the_places(seed: int) -> None:
    """And the first place alone is what the tables set in bold."""
    drawn = np.random.default_rng(seed)
    samples = {
        name: seeds(*(centre + 0.3 * drawn.standard_normal(3)))
        for name, centre in zip("abcde", (1.0, 1.2, 1.4, 2.5, 2.6), strict=True)
    }
    found = ranks(samples, "fid")
    ahead = {
        (left, right)
        for left, right in itertools.permutations(samples, 2)
        if ranks({name: samples[name] for name in (left, right)}, "fid")[left].last == 1
    }
    assert ahead
    for order in itertools.permutations(samples):
        places = {name: place for place, name in enumerate(order, start=1)}
        if all(places[left] < places[right] for left, right in ahead):
            assert all(found[n].first <= places[n] <= found[n].last for n in samples)
    bits = Bits(4, 4)
    bold = leaders({(bits, name): {"fid": values} for name, values in samples.items()})
    assert {name for name in samples if found[name].last == 1} == {
        name for (_, name), keys in bold.items() if keys
    }
