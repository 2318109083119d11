"""Verdicts on made-up results: each of them reached, and left again when a number changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from hqdm_bench.report.claims.verdicts import (
    INCONCLUSIVE,
    NOT_IMPLIED,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    Comparison,
    grade_comparisons,
)
from hqdm_bench.report.estimates import Draws

if TYPE_CHECKING:
    from conftest import World

SPREAD = np.random.default_rng(0).normal(size=400)


def of(key: str, *values: float) -> list[dict[str, float]]:
    return [{key: value} for value in values]


def metrics(fid: float, sfid: float, share: float, recall: float) -> dict[str, float]:
    return {"fid": fid, "sfid": sfid, "precision": share, "recall": recall}


def inception(world: World, *hqdm: float, bits: str = "w4a4") -> World:
    """EfficientDM's IS is 10 in every seed."""
    world.add("imagenet", "efficientdm", bits, *of("is", *[10.0] * len(hqdm)))
    return world.add("imagenet", "hqdm", bits, *of("is", *hqdm))


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((11.0, 11.2, 11.1), REPRODUCED),
        ((9.0, 9.2, 9.1), NOT_REPRODUCED),
        ((9.0, 11.2, 10.1), INCONCLUSIVE),
        ((12.0,), INCONCLUSIVE),  # one seed, no replicates
    ],
)
def test_a_direction_over_seeds(world: World, values: tuple[float, ...], verdict: str) -> None:
    found = inception(world, *values).judge("is-w4a4")
    assert found.verdict == verdict
    assert found.grade.effect == pytest.approx(10 * (np.mean(values) - 10))  # in percent
    assert found.grade.unit == "% gain in IS-like"
    if len(values) == 3:
        assert found.grade.kind == "95 % over 3 training seeds"


def test_a_direction_ignores_the_papers_number(world: World) -> None:
    """The paper says 12.76 %; an embedded suite that finds 500 % has reproduced the direction."""
    found = inception(world, 60.0, 60.1, 60.2).judge("is-w4a4")
    assert found.verdict == REPRODUCED
    assert "12.76" not in found.rule
    assert found.scope.startswith("The direction only")
    assert "384 images" in found.scope


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((11.27, 11.28, 11.28), REPRODUCED),  # 12.7 % to 12.8 %
        ((13.0, 13.1, 13.2), NOT_REPRODUCED),  # right way, wrong number
        ((8.0, 8.1, 8.2), NOT_REPRODUCED),
        ((9.0, 13.0, 11.3), INCONCLUSIVE),  # holds zero and the number
    ],
)
def test_the_papers_own_experiment_is_graded_by_number(
    papers_world: World, values: tuple[float, ...], verdict: str
) -> None:
    found = inception(papers_world, *values).judge("is-w4a4")
    assert found.verdict == verdict
    assert "holds 12.76" in found.rule
    assert found.scope == "The paper's own experiment (some-imagenet), numbers included."


@pytest.mark.parametrize(
    ("value", "verdict", "words"),
    [
        (11.276, REPRODUCED, "holds 12.76"),
        (11.90, INCONCLUSIVE, "cannot refute it by less than a factor 2"),
        (13.50, NOT_REPRODUCED, "does not hold 12.76."),
        (10.30, NOT_REPRODUCED, "does not hold 12.76."),
        (9.00, NOT_REPRODUCED, "does not hold 12.76."),
    ],
)
def test_one_seed_refutes_a_number_only_by_a_factor_of_two(
    papers_world: World, value: float, verdict: str, words: str
) -> None:
    papers_world.add("imagenet", "efficientdm", "w4a4", {"is": 10.0}, noise={"is": 0 * SPREAD})
    papers_world.add("imagenet", "hqdm", "w4a4", {"is": value}, noise={"is": 0.01 * SPREAD})
    found = papers_world.judge("is-w4a4")
    assert (found.verdict, found.grade.kind) == (
        verdict,
        "95 % over images of one training seed",
    )
    assert words in found.grade.result


def test_replicates_are_paired(world: World) -> None:
    """What both cells share cancels: 0.1 is told apart although each cell moves by 1."""
    noise = {"fid": SPREAD}
    world.add("bedrooms", "efficientdm", "w4a4", {"fid": 8.0}, noise=noise)
    world.add("bedrooms", "hqdm", "w4a4", {"fid": 7.9}, noise=noise)
    found = world.judge("bedrooms-fid-w4a4")
    assert found.verdict == REPRODUCED
    assert found.grade.interval == pytest.approx((0.1, 0.1))
    assert found.grade.unit == "gain in FID-like"
    assert [path.name for path in found.grade.evidence] == ["metrics.json"] * 2


def test_a_contradiction_is_not_implied_whatever_is_found(world: World) -> None:
    world.add("bedrooms", "efficientdm", "w3a4", *of("fid", 8.0, 8.1, 8.2))
    world.add("bedrooms", "hqdm", "w3a4", *of("fid", 7.0, 7.1, 7.2))
    found = world.judge("bedrooms-fid-w3a4")
    assert found.verdict == NOT_IMPLIED
    assert found.grade.verdict == REPRODUCED
    assert found.grade.effect == pytest.approx(1.0)


def test_without_the_cells_nothing_is_run(world: World) -> None:
    found = inception(world, 11.0, 11.1).judge("churches-fid-w4a4")
    assert found.verdict == NOT_RUN
    assert found.scope.startswith("Nothing: the suite has no model of that data set")
    assert found.grade.evidence == ()
    speed = world.judge("faster")
    assert speed.verdict == NOT_RUN
    assert "full-size models" in speed.rule


def churches(world: World, *, recall: float = 0.7, widths: tuple[str, ...] = ("w4a4", "w4a3")):
    for bits in widths:
        rows = [metrics(8.0 + s, 9.0 + s, 0.5 + s, 0.5 + s) for s in (0.0, 0.01, 0.02)]
        world.add("churches", "efficientdm", bits, *rows)
        rows = [metrics(7.0 + s, 8.0 + s, 0.7 + s, recall + s) for s in (0.0, 0.01, 0.02)]
        world.add("churches", "hqdm", bits, *rows)
    return world


def test_all_of_many_comparisons(world: World) -> None:
    found = churches(world).judge("churches-ahead")
    assert (found.verdict, found.grade.effect) == (REPRODUCED, 8.0)
    assert found.grade.unit == "of 8 comparisons supported"
    assert {part.word for part in found.grade.parts} == {"supported"}
    assert len(found.grade.evidence) == 12


def test_one_of_many_refutes(world: World) -> None:
    found = churches(world, recall=0.3).judge("churches-ahead")
    assert found.verdict == NOT_REPRODUCED
    words = [part.word for part in found.grade.parts if "Recall" in part.label]
    assert words == ["contradicted", "contradicted"]
    assert found.grade.result == "6 of 8 comparisons for it, 2 against it."


def test_what_was_not_run_leaves_the_others_open(world: World) -> None:
    found = churches(world, widths=("w4a4",)).judge("churches-ahead")
    assert found.verdict == INCONCLUSIVE
    assert found.grade.result == "4 of 8 comparisons for it, 4 not run."


def test_a_chance_loss_among_many_does_not_refute() -> None:
    """Alone, a difference two standard errors below zero refutes; among twenty it does not."""
    level = {0: Draws(0.0, SPREAD)}
    standard = SPREAD - SPREAD.mean()
    behind = {0: Draws(-2.2 * standard.std(ddof=1), standard - 2.2 * standard.std(ddof=1))}

    def pair(sample: dict[int, Draws]) -> Comparison:
        return Comparison("", (lambda value: value,), (sample,), "")

    assert grade_comparisons([pair(behind)]).verdict == NOT_REPRODUCED
    ahead = {0: Draws(9.0, SPREAD + 9)}
    assert grade_comparisons([pair(behind), *[pair(ahead)] * 19]).verdict == INCONCLUSIVE
    far = {0: Draws(-9.0, SPREAD - 9)}
    assert grade_comparisons([pair(far), *[pair(ahead)] * 19]).verdict == NOT_REPRODUCED
    assert grade_comparisons([pair(level), pair(ahead)]).verdict == INCONCLUSIVE


def trend(world: World, *, at_four: float, at_three: float) -> World:
    """Gains of HQ-DM's FID on churches at W4A4 and W4A3; the other metrics gain alike."""
    for bits, gain in (("w4a4", at_four), ("w4a3", at_three)):
        for method, better in (("efficientdm", 0.0), ("hqdm", gain)):
            rows = [
                metrics(
                    20.0 - better + s, 20.0 - better + s, 0.3 + better / 100, 0.3 + better / 100
                )
                for s in (0.0, 0.01, 0.03)
            ]
            world.add("churches", method, bits, *rows)
            world.add("bedrooms", method, bits, *rows)
    return world


@pytest.mark.parametrize(
    ("at_four", "at_three", "measured"),
    [(1.0, 3.0, REPRODUCED), (3.0, 1.0, NOT_REPRODUCED), (2.0, 2.0, INCONCLUSIVE)],
)
def test_a_gain_that_grows_as_bits_decrease(
    world: World, at_four: float, at_three: float, measured: str
) -> None:
    found = trend(world, at_four=at_four, at_three=at_three).judge("lsun-trend")
    assert found.grade.verdict == measured
    assert found.verdict == NOT_IMPLIED
    first = found.grade.parts[0]
    assert first.effect == pytest.approx(at_three - at_four)
    assert first.unit == "more gain in FID-like"


def test_a_gain_may_grow_in_percent_only(world: World) -> None:
    """From 20 to 18 and from 4 to 2.5: fewer points, more percent."""
    for bits, level, gain in (("w4a4", 20.0, 2.0), ("w4a3", 4.0, 1.5)):
        world.add("churches", "efficientdm", bits, *of("fid", level, level))
        world.add("churches", "hqdm", bits, *of("fid", level - gain, level - gain))
    parts = world.judge("lsun-trend").grade.parts
    (fid,) = [part for part in parts if ", FID-like" in part.label and "churches" in part.label]
    assert (fid.effect, fid.word) == (pytest.approx(-0.5), "supported")


def test_an_optimum(world: World) -> None:
    for method, level in (("hqdm-k3", 3.0), ("hqdm-k4", 2.0), ("hqdm", 1.0), ("hqdm-k6", 2.5)):
        rows = [
            {
                "is": 9 - level + s,
                "fid": level + s,
                "sfid": level + s,
                "precision": 0.5 - level / 10,
            }
            for s in (0.0, 0.01, 0.03)
        ]
        world.add("imagenet", method, "w4a4", *rows)
    found = world.judge("best-order")
    assert (found.grade.verdict, found.verdict) == (REPRODUCED, NOT_IMPLIED)
    assert len(found.grade.parts) == 12
    world.results = [result for result in world.results if result.cell.method != "hqdm-k6"]
    assert world.judge("best-order").grade.verdict == INCONCLUSIVE


def test_below_full_precision(world: World) -> None:
    """Full precision has one seed and stands beside each of the student's."""
    for dataset in ("imagenet", "bedrooms", "churches"):
        full = {"is": 20.0, "fid": 1.0, "sfid": 2.0, "precision": 0.8, "recall": 0.8}
        world.add(dataset, "fp", "w32a32", full)
        worse = [
            {"is": 10.0 + s, "fid": 9.0 + s, "sfid": 9.0, "precision": 0.5 + s, "recall": 0.5}
            for s in (0.0, 0.001)
        ]
        world.add(dataset, "efficientdm", "w4a3", *worse)
    found = world.judge("qat-degrades")
    assert (found.verdict, found.grade.effect) == (REPRODUCED, 12.0)
    assert world.judge("ptq-degrades").verdict == NOT_RUN


def test_a_threshold_counts_at_the_papers_scale_only(tmp_path, world: World) -> None:
    def fill(place: World) -> World:
        rows = [{"is": 1.0, "fid": 9.0, "sfid": 9.0, "precision": 0.2}] * 2
        place.add("imagenet", "efficientdm", "w4a3", *rows)
        rows = [{"is": 1.5, "fid": 3.0, "sfid": 3.0, "precision": 0.3}] * 2
        return place.add("imagenet", "hqdm", "w4a3", *rows)

    assert fill(world).judge("all-four-w4a3").grade.verdict == REPRODUCED
    own = fill(type(world)(tmp_path, papers=True)).judge("all-four-w4a3")
    assert own.grade.verdict == NOT_REPRODUCED
    assert own.grade.parts[0].effect == pytest.approx(-50.0)  # 50 % is 50 short of 100 %


def test_nothing_is_divided_by_zero(world: World) -> None:
    world.add("imagenet", "efficientdm", "w4a3", *of("precision", 0.0, 0.0))
    world.add("imagenet", "hqdm", "w4a3", *of("precision", 0.5, 0.6))
    assert world.judge("precision-w4a3").verdict == NOT_RUN


INTEGER = {"engine": "integer", "why": "exact here"}
FRACTIONAL = {"engine": "fake", "why": "layer 'a': the zero-point of its input is 0.5"}
OTHER_CPU = {"engine": "fake", "why": "oneDNN's int8 sums are not exact here"}


@pytest.mark.parametrize(
    ("engines", "verdict", "effect"),
    [
        ((INTEGER, INTEGER), REPRODUCED, 1.0),
        ((FRACTIONAL, FRACTIONAL), NOT_REPRODUCED, 0.0),
        ((INTEGER, FRACTIONAL), NOT_REPRODUCED, 0.5),
        ((OTHER_CPU, OTHER_CPU), NOT_RUN, None),
        ((None, None), NOT_RUN, None),
        ((INTEGER, OTHER_CPU), REPRODUCED, 1.0),
    ],
)
def test_execution_in_integers(
    world: World, engines: tuple[dict[str, str] | None, ...], verdict: str, effect: float | None
) -> None:
    world.add("imagenet", "hqdm", "w4a4", *of("fid", 1.0, 1.1), engines=engines)
    found = world.judge("integer-convolution")
    assert found.verdict == verdict
    if effect is not None:
        (part,) = found.grade.parts
        assert part.effect == effect
