"""What a suite's comparisons set side by side, read from results."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hqdm_bench.catalogue import Bits, ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.effects import Effect, Span, paired_effect, span
from hqdm_bench.report.footprint import Footprint, footprint, layers_text, same_layers
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.results import CellResult

__all__ = ["STUDENT_KEYS", "STUDY_KEYS", "Arm", "Group", "Pair"]

STUDY_KEYS = ("noise_error", "fid", "sfid", "precision", "recall", "psnr_median")
STUDENT_KEYS = ("noise_error",)  # without images


@dataclass(frozen=True)
class Arm:
    """One method on one model at one bit-width: its results, one per training seed."""

    title: str
    results: tuple[CellResult, ...]

    @property
    def method(self) -> str:
        """Catalogue name."""
        return self.results[0].cell.method

    @property
    def footprint(self) -> Footprint | None:
        """What its students cost."""
        return footprint(self.results)

    def values(self, key: str) -> dict[int, float]:
        """A quantity by seed, in the shown unit."""
        scale = quantity(key).scale
        found = {result.cell.seed: result.value(key) for result in self.results}
        return {seed: scale * value for seed, value in found.items() if value is not None}

    def level(self, key: str) -> Span:
        """Mean of a quantity over all seeds of this arm, geometric where it is skewed."""
        return span([*self.values(key).values()], quantity(key).ratio)

    @property
    def settings(self) -> dict[str, Any]:
        """Implementation and options, as trained."""
        training = self.results[0].training
        assert training is not None
        return {"implementation": training["method"]["implementation"], **training["options"]}


@dataclass(frozen=True)
class Pair:
    """A method against another, on the seeds both have."""

    method: Arm
    against: Arm
    keys: tuple[str, ...]

    @cached_property
    def effects(self) -> dict[str, Effect]:
        """By quantity.

        Raises:
            BenchError: fewer than two shared seeds, or a value that no interval can hold.
        """
        found = {}
        for key in self.keys:
            try:
                values = self.method.values(key), self.against.values(key)
                found[key] = paired_effect(quantity(key), *values)
            except BenchError as error:
                cell, other = self.method.results[0].cell, self.against.method
                place = f"{cell.suite}/{cell.model}/{cell.method}/{cell.bits}"
                raise BenchError(f"{place} against {other}, {key}: {error}") from None
        return found

    @property
    def changes(self) -> tuple[str, ...]:
        """Options that differ, as ``option: against → method``.

        Options of one implementation only are not named where the implementations differ.
        """
        old, new = self.against.settings, self.method.settings
        alike = old["implementation"] == new["implementation"]
        keys = [key for key in {**old, **new} if alike or (key in old and key in new)]
        return tuple(
            f"{key}: {old.get(key, 'unset')} → {new.get(key, 'unset')}"
            for key in keys
            if old.get(key) != new.get(key)
        )

    @property
    def layers(self) -> str:
        """In words, which layers are low-bit in both where that differs; else empty."""
        own, other = self.method.results[0], self.against.results[0]
        if same_layers(own, other):
            return ""
        return f"{layers_text(own)}; {self.against.title}: {layers_text(other)}"


@dataclass(frozen=True)
class Group:
    """A baseline and the methods set against it, on one model at one bit-width."""

    model: ModelSpec
    bits: Bits
    baseline: Arm
    methods: tuple[Arm, ...]
    keys: tuple[str, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Each method against the baseline."""
        return tuple(Pair(arm, self.baseline, self.keys) for arm in self.methods)

    @property
    def reversed_pairs(self) -> tuple[Pair, ...]:
        """The baseline against each method."""
        return tuple(Pair(self.baseline, arm, self.keys) for arm in self.methods)

    @property
    def results(self) -> tuple[CellResult, ...]:
        """Every result in it."""
        return tuple(result for arm in (self.baseline, *self.methods) for result in arm.results)
