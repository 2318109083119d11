"""What decides a sentence: comparisons with intervals, or counts over layers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hqdm_bench.report.estimates import IMAGES, LEVEL, SEEDS, Estimate, Function, Sample, estimate

__all__ = [
    "INCONCLUSIVE",
    "NOT_IMPLIED",
    "NOT_REPRODUCED",
    "NOT_RUN",
    "REPRODUCED",
    "VERDICTS",
    "Comparison",
    "Count",
    "Grade",
    "Part",
    "grade_comparisons",
    "grade_counts",
    "interval_kind",
    "not_run",
]

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
INCONCLUSIVE = "inconclusive"
NOT_RUN = "not run"
NOT_IMPLIED = "not implied by the paper's own tables"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_IMPLIED, NOT_RUN)

OVER_IMAGES = "95 % over images of one training seed"
SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "open"


@dataclass(frozen=True)
class Part:
    """One comparison behind a verdict.

    Attributes:
        label: what is compared.
        effect: None where it was not run.
        unit: of the effect.
        interval: 95 %, None where there is none.
        kind: what the interval is over.
        word: supported, contradicted, open or not run.
    """

    label: str
    effect: float | None
    unit: str
    interval: tuple[float, float] | None
    kind: str
    word: str


@dataclass(frozen=True)
class Grade:
    """What a suite's results say of a sentence.

    Attributes:
        verdict: reproduced, not reproduced, inconclusive or not run.
        result: in words.
        effect: the one effect, or how many comparisons support the sentence.
        unit: of the effect.
        interval: of a single effect.
        kind: what the interval is over.
        parts: every comparison.
        evidence: files the numbers come from.
    """

    verdict: str
    result: str
    effect: float | None = None
    unit: str = ""
    interval: tuple[float, float] | None = None
    kind: str = ""
    parts: tuple[Part, ...] = ()
    evidence: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A function of samples that the sentence says is above zero.

    Attributes:
        label: what is compared.
        functions: of the samples; several are readings of the same words, of which the one kindest
            to the sentence counts. The first is shown.
        samples: arguments of each function.
        unit: of what is shown.
        shown: monotone map from the first function's value to what is shown.
        evidence: files behind the samples.
    """

    label: str
    functions: tuple[Function, ...]
    samples: tuple[Sample, ...]
    unit: str
    evidence: tuple[Path, ...] = ()
    shown: Callable[[float], float] = float

    def estimates(self, level: float = LEVEL) -> list[Estimate]:
        """One per function; none if the samples share no seed."""
        found = [estimate(function, *self.samples, level=level) for function in self.functions]
        return [one for one in found if one is not None]

    def part(self, strict: float) -> Part:
        """Judged at 95 %; contradicted only at a level that allows for several comparisons."""
        found = self.estimates()
        if not found:
            return Part(self.label, None, self.unit, None, "", NOT_RUN)
        word = OPEN
        if any(one.sign > 0 for one in found):
            word = SUPPORTED
        elif all(one.sign < 0 for one in self.estimates(strict)):
            word = CONTRADICTED
        first = found[0]
        interval = None
        if first.low is not None and first.high is not None:
            low, high = sorted((self.shown(first.low), self.shown(first.high)))
            interval = low, high
        return Part(
            self.label, self.shown(first.mean), self.unit, interval, interval_kind(first), word
        )


@dataclass(frozen=True)
class Count:
    """A layer or panel: a number without sampling error, or with one of its own.

    Attributes:
        holds: None where it cannot tell.
    """

    label: str
    effect: float
    unit: str
    holds: bool | None
    interval: tuple[float, float] | None = None
    kind: str = ""


def interval_kind(found: Estimate) -> str:
    """What an interval is over, in words."""
    if found.source == SEEDS:
        return f"95 % over {found.n} training seeds"
    return OVER_IMAGES if found.source == IMAGES else ""


def grade_comparisons(comparisons: Sequence[Comparison]) -> Grade:
    """A sentence that says all of several comparisons go one way.

    It takes all of them to reproduce it. One refutes it, but of many true ones some look false by
    chance, so a single one refutes at the level 0.05 over their number (Bonferroni).
    """
    run = [one for one in comparisons if one.estimates()]
    if not run:
        return not_run("The suite has none of the cells this sentence speaks of.")
    parts = tuple(one.part(1 - (1 - LEVEL) / len(run)) for one in comparisons)
    words = [part.word for part in parts]
    if CONTRADICTED in words:
        verdict = NOT_REPRODUCED
    else:
        verdict = REPRODUCED if set(words) == {SUPPORTED} else INCONCLUSIVE
    evidence = tuple(dict.fromkeys(path for one in run for path in one.evidence))
    if len(parts) == 1:
        (part,) = parts
        text = "" if part.interval else "One training seed without a bootstrap has no interval."
        return Grade(
            verdict, text, part.effect, part.unit, part.interval, part.kind, parts, evidence
        )
    supported = words.count(SUPPORTED)
    return Grade(
        verdict,
        _tally(parts),
        float(supported),
        f"of {len(parts)} comparisons supported",
        parts=parts,
        evidence=evidence,
    )


def _tally(parts: Sequence[Part]) -> str:
    words = [part.word for part in parts]
    phrases = {CONTRADICTED: "against it", OPEN: "open", NOT_RUN: "not run"}
    counts = [f"{words.count(word)} {text}" for word, text in phrases.items() if word in words]
    first = f"{words.count(SUPPORTED)} of {len(words)} comparisons for it"
    images = sum(part.kind == OVER_IMAGES for part in parts)
    remark = f" {images} of the intervals are over images of one training seed." if images else ""
    return f"{', '.join((first, *counts))}.{remark}"


def grade_counts(counts: Sequence[Count], evidence: Sequence[Path], noun: str) -> Grade:
    """A sentence about layers: reproduced if all agree, not if no more than half do."""
    held = sum(count.holds is True for count in counts)
    if held == len(counts):
        verdict = REPRODUCED
    else:
        verdict = INCONCLUSIVE if 2 * held > len(counts) else NOT_REPRODUCED
    words = {True: SUPPORTED, False: CONTRADICTED, None: OPEN}
    parts = tuple(
        Part(one.label, one.effect, one.unit, one.interval, one.kind, words[one.holds])
        for one in counts
    )
    if len(counts) == 1:
        (only,) = counts
        return Grade(
            verdict, "", only.effect, only.unit, only.interval, only.kind, parts, tuple(evidence)
        )
    effects = sorted(count.effect for count in counts)
    middle = effects[len(effects) // 2] if len(effects) % 2 else _mean(effects)
    text = f"It holds for {held} of {len(counts)} {noun}; median {middle:.3g} {counts[0].unit}."
    ends = effects[0], effects[-1]
    interval = ends if all(map(math.isfinite, ends)) else None
    return Grade(
        verdict,
        text,
        middle if math.isfinite(middle) else None,
        f"{counts[0].unit}, median of {len(counts)} {noun}",
        interval,
        f"range over {noun}",
        parts,
        tuple(evidence),
    )


def _mean(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return (ordered[half - 1] + ordered[half]) / 2


def not_run(reason: str) -> Grade:
    """Nothing to grade."""
    return Grade(NOT_RUN, reason)
