"""What a kind of figure is: the keys of its entry, the files it reads, and how it is drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqdm_bench.catalogue import Bits, Catalogue, Cell, Suite
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.common.errors import BenchError

__all__ = ["Entry", "Kind", "Source"]

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """Where a figure takes its numbers from."""

    layout: Layout
    suite: Suite
    catalogue: Catalogue

    def outliers(self, entry: Entry) -> Path:
        """Channel maxima of the entry's model."""
        return self.layout.outliers(self.suite.name, entry["model"])

    def seeds(self, model: str, method: str, bits: Bits) -> list[Cell]:
        """The cells of one curve.

        Raises:
            BenchError: the suite trains no such student.
        """
        cells = self.suite.model(model).cells
        found = [cell for cell in cells if (cell.method, cell.bits) == (method, bits)]
        if not found:
            raise BenchError(
                f"suite '{self.suite.name}' has no cell {model}/{method}/{bits}; add it "
                f"to config/suites/{self.suite.name}.yaml or take it out of the figure"
            )
        return found

    def scores(self, cell: Cell) -> list[Path]:
        """What a cell's metrics and their intervals over images are read from."""
        paths = [self.layout.metrics(cell)]
        if self.catalogue.protocol(cell.protocol).bootstrap:
            paths.append(self.layout.replicates(cell))
        return paths

    def titles(self, methods: Sequence[str]) -> dict[str, str]:
        """Names to print."""
        return {method: self.catalogue.method(method).title for method in methods}


@dataclass(frozen=True)
class Kind:
    """A kind of figure: the keys its entry must have, what it reads, how it is drawn."""

    keys: frozenset[str]
    inputs: Callable[[Entry, Source], tuple[Path, ...]]
    draw: Callable[[Entry, Source, Path], tuple[Path, Path]]
