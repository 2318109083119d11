"""Full-precision image sets of a suite beside the paper's row: which protocol comes closest?"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hqdm_bench.catalogue import Baseline, Catalogue, Layout, ModelSpec, Protocol, Suite
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import write_text
from hqdm_bench.report.acceptance import Check
from hqdm_bench.report.paper import paper_rows
from hqdm_bench.report.quantities import METRICS, MINI_EXTRACTOR
from hqdm_bench.report.results import read_own
from hqdm_bench.report.table_specs import TABLES

__all__ = ["BaselineRow", "baseline_rows", "write_baselines"]

COLUMNS = ("model", "weights", "protocol", "steps", "eta", "guidance", "images")


@dataclass(frozen=True)
class BaselineRow:
    """One image set.

    Attributes:
        dataset: the paper's data set.
        values: metric to stored value.
        checks: against the values others report under this protocol.
        distance: mean over the paper's metrics of |ours - paper| / max(ours, paper), from 0 to 1;
            None where the extractor is not the paper's.
    """

    dataset: str
    spec: ModelSpec
    protocol: Protocol
    values: dict[str, float]
    checks: tuple[Check, ...]
    distance: float | None

    @property
    def weights(self) -> str:
        """Which weights of the checkpoint are sampled."""
        return "averaged" if self.spec.ema else "as stored"

    @property
    def verdict(self) -> str:
        """What the checks say."""
        if not self.checks:
            return ""
        return "as expected" if all(check.within for check in self.checks) else "out of range"


def baseline_rows(root: Path, suite: Suite, catalogue: Catalogue) -> tuple[BaselineRow, ...]:
    """Read every baseline of a suite, data set by data set.

    Raises:
        BenchError: the suite has none, or a metrics file is missing or another cell's.
    """
    baselines = [baseline for entry in suite.models for baseline in entry.baselines]
    if not baselines:
        raise BenchError(
            f"suite '{suite.name}' has no baselines; list them under a model of "
            f"config/suites/{suite.name}.yaml"
        )
    rows = [_row(root, baseline, catalogue) for baseline in baselines]
    return tuple(sorted(rows, key=lambda row: list(_paper(root)).index(row.dataset)))


def _row(root: Path, baseline: Baseline, catalogue: Catalogue) -> BaselineRow:
    layout, cell = Layout(root), baseline.cell
    metrics = read_own(layout, layout.metrics(cell), cell)
    spec, values = catalogue.model(cell.model), metrics["values"]
    checks = tuple(
        Check(cell.protocol, metric, values[metric], low, high)
        for metric, (low, high) in baseline.expect.items()
    )
    distance = None
    if metrics["extractor"]["name"] != MINI_EXTRACTOR:
        distance = _distance(values, _paper(root)[spec.paper_dataset])
    protocol = Protocol(**metrics["protocol"])
    return BaselineRow(spec.paper_dataset, spec, protocol, values, checks, distance)


def _paper(root: Path) -> dict[str, dict[str, float]]:
    """Full-precision row of each data set, in stored units."""
    found = {}
    for number in (1, 2, 3):
        row = next(row for row in paper_rows(root, number) if row.method == "fp")
        found[TABLES[number].dataset] = {
            metric: entry.value / METRICS[metric].scale
            for metric, entry in row.values.items()
            if entry.value is not None
        }
    return found


def _distance(values: dict[str, float], paper: dict[str, float]) -> float:
    parts = [
        abs(values[metric] - value) / max(values[metric], value) for metric, value in paper.items()
    ]
    return sum(parts) / len(parts)


def write_baselines(root: Path, suite: Suite, catalogue: Catalogue) -> None:
    """Write ``baselines.csv`` and ``baselines.md``.

    Raises:
        BenchError: see `baseline_rows`.
    """
    rows = baseline_rows(root, suite, catalogue)
    layout = Layout(root)
    write_text(layout.baselines(suite.name, "csv"), _csv(rows))
    write_text(layout.baselines(suite.name, "md"), _markdown(suite, rows, _paper(root)))


def _csv(rows: Iterable[BaselineRow]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*COLUMNS, *METRICS, "expected", "distance_to_paper"])
    for row in rows:
        values = [repr(row.values[metric]) for metric in METRICS]
        distance = "" if row.distance is None else repr(row.distance)
        writer.writerow([*_describe(row), *values, row.verdict, distance])
    return buffer.getvalue()


def _describe(row: BaselineRow) -> list[str]:
    protocol = row.protocol
    settings = (protocol.steps, f"{protocol.eta:g}", f"{protocol.guidance:g}", protocol.images)
    return [row.spec.name, row.weights, protocol.name, *map(str, settings)]


def _markdown(suite: Suite, rows: Sequence[BaselineRow], paper: dict[str, dict[str, float]]) -> str:
    parts = [f"# Full-precision baselines of suite {suite.name}"]
    for dataset in dict.fromkeys(row.dataset for row in rows):
        own = [row for row in rows if row.dataset == dataset]
        parts += [f"## {dataset.capitalize()}", _table(suite.extractor, own, paper[dataset])]
        expectations = [str(check) for row in own for check in row.checks]
        if expectations:
            parts.append("Checked against what others report: " + "; ".join(expectations) + ".")
    if any(row.distance is not None for row in rows):
        parts.append(
            "Distance to the paper: mean over its metrics of the difference in units of the larger "
            "value, 0 to 1; the smallest of several is bold."
        )
    return "\n\n".join(parts) + "\n"


def _table(extractor: str, rows: Sequence[BaselineRow], paper: dict[str, float]) -> str:
    heads = [METRICS[metric].head(extractor) for metric in METRICS]
    columns = [*COLUMNS, *heads, "expected range", "distance to paper"]
    lines = [_line(columns), _line(["---"] * len(columns))]
    printed = [
        f"{paper[metric] * entry.scale:.{entry.decimals}f}" if metric in paper else ""
        for metric, entry in METRICS.items()
    ]
    lines.append(_line(["*paper*", *[""] * (len(COLUMNS) - 1), *printed, "", ""]))
    distances = [row.distance for row in rows if row.distance is not None]
    for row in rows:
        values = [
            f"{row.values[metric] * entry.scale:.{entry.digits(extractor)}f}"
            for metric, entry in METRICS.items()
        ]
        distance = "" if row.distance is None else f"{row.distance:.3f}"
        if len(distances) > 1 and row.distance == min(distances):
            distance = f"**{distance}**"
        lines.append(_line([*_describe(row), *values, row.verdict, distance]))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
