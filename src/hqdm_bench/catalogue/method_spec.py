"""Rows of the tables: an implementation with options."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

__all__ = ["FittingWork", "MethodSpec"]


@dataclass(frozen=True)
class FittingWork:
    """What the stages of a post-training method compute at its released settings.

    A test holds these numbers, which `plan` needs without loading torch, to the stages.

    Attributes:
        rows: inputs of the network, or of all its parts, that gradients are taken for.
        images: whose inputs at every timestep are drawn.
        paths: drawn after that, to measure the noise error.
        datasets: what of it differs on models of one of the paper's data sets.
    """

    rows: int = 0
    images: int = 256
    paths: int = 0
    datasets: dict[str, dict[str, int]] = field(default_factory=dict)

    def on(self, dataset: str | None) -> Self:
        """The work on models of a data set."""
        own = self.datasets.get(dataset, {}) if dataset else {}
        return replace(self, datasets={}, **own)


@dataclass(frozen=True)
class MethodSpec:
    """One row of the tables.

    Attributes:
        implementation: registered method that runs it.
        options: preset and overrides; completed and checked by the implementation.
        datasets: overrides for models of one of the paper's data sets, whose released scripts
            differ.
        work: of a post-training method; None for what follows from the recipe.
    """

    name: str
    title: str
    implementation: str
    options: dict[str, Any]
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    work: FittingWork | None = None

    @classmethod
    def read(cls, name: str, entry: Mapping[str, Any]) -> Self:
        """From a catalogue's entry."""
        values = dict(entry)
        if "work" in values:
            values["work"] = FittingWork(**values["work"])
        return cls(name=name, **values)

    def on(self, dataset: str | None) -> Self:
        """The method as it is run on models of a data set."""
        own = self.datasets.get(dataset, {}) if dataset else {}
        work = self.work and self.work.on(dataset)
        return replace(self, options={**self.options, **own}, datasets={}, work=work)

    def asdict(self) -> dict[str, Any]:
        """What a result depends on."""
        found: dict[str, Any] = {
            "name": self.name,
            "title": self.title,
            "implementation": self.implementation,
            "options": self.options,
        }
        return {**found, "datasets": self.datasets} if self.datasets else found
