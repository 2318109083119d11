"""What a suite has to grade sentences with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hqdm_bench.catalogue import Bits, Catalogue, Layout, ModelSpec, Suite
from hqdm_bench.catalogue.jobs import TABLE_DATASETS
from hqdm_bench.report.claims.specs import Spot
from hqdm_bench.report.estimates import Draws, Sample
from hqdm_bench.report.paper import PAPER_TITLES, is_the_papers
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.results import CellResult, ResultSet
from hqdm_bench.report.samples import sample

__all__ = ["FULL", "Material"]

FULL = Bits(32, 32)


@dataclass(frozen=True)
class Material:
    """Results of a suite, looked up the way the paper's sentences are."""

    root: Path
    suite: Suite
    catalogue: Catalogue
    results: ResultSet

    @classmethod
    def load(cls, root: Path, suite: Suite, catalogue: Catalogue) -> Self:
        """Everything of a suite.

        Raises:
            BenchError: a result is missing or damaged.
        """
        return cls(root, suite, catalogue, ResultSet.load(root, suite))

    @property
    def layout(self) -> Layout:
        """Where the suite's files are."""
        return Layout(self.root)

    def models(self, table: int) -> tuple[ModelSpec, ...]:
        """The suite's models that stand for a table's data set."""
        specs = [self.catalogue.model(entry.model) for entry in self.suite.models]
        return tuple(spec for spec in specs if spec.paper_dataset == TABLE_DATASETS[table])

    def cells(self, model: str, method: str, bits: Bits) -> tuple[CellResult, ...]:
        """Results of one row, seed by seed."""
        return self.results.select(model, method, FULL if method == "fp" else bits)

    def sample(self, model: str, method: str, spot: Spot) -> Sample:
        """A quantity of one row, empty where the suite has no such cell."""
        return sample(self.cells(model, method, spot.bits), spot.metric)

    def full_precision(self, model: str, spot: Spot, seeds: Sequence[int]) -> dict[int, Draws]:
        """Full precision beside every training seed, being none of them itself."""
        found = list(self.sample(model, "fp", spot).values())
        return {seed: found[0] for seed in seeds} if found else {}

    def title(self, method: str) -> str:
        """As printed; also of methods that only the paper has."""
        known = self.catalogue.methods.get(method)
        return known.title if known else PAPER_TITLES.get(method, method)

    def papers_own(self, model: str) -> bool:
        """Whether a model is scored as the paper's, so that its numbers can be graded."""
        scored = [r.metrics for r in self.results.select(model) if r.metrics is not None]
        spec = self.catalogue.model(model)
        return bool(scored) and all(
            is_the_papers(spec, one["protocol"], one["extractor"]) for one in scored
        )

    def files(self, model: str, method: str, bits: Bits, metric: str) -> tuple[Path, ...]:
        """Where a quantity of one row is read from."""
        trained = metric == "noise_error"
        return tuple(
            self.layout.training(result.cell) if trained else self.layout.metrics(result.cell)
            for result in self.cells(model, method, bits)
        )

    def label(self, metric: str) -> str:
        """Head of a quantity in this suite's features."""
        return quantity(metric).head_lines(self.suite.extractor)[0]
