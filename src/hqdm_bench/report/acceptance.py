"""Whether a full-precision model scores as others report: the gate before any student is trained.

A wrong reference set, raw instead of averaged weights or another eta move the full-precision row by
more than the methods differ. A suite therefore names baselines, image sets of the full-precision
model under protocols with known results, and the range in which each metric must fall.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hqdm_bench.catalogue import Baseline, Layout, SuiteModel
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import read_json
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.results import read_own

__all__ = ["Acceptance", "Check", "judge", "read_acceptance"]

USUAL_CAUSES = (
    "the usual causes are raw weights where averaged ones are due, a reference set prepared in "
    "another way, another eta or step count, and class-sorted images"
)


@dataclass(frozen=True)
class Check:
    """One metric of one baseline against its range, in the stored unit (shares in [0, 1])."""

    protocol: str
    metric: str
    value: float
    low: float
    high: float

    @property
    def within(self) -> bool:
        """Whether the value is in the closed range."""
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        entry = quantity(self.metric)
        value, low, high = (x * entry.scale for x in (self.value, self.low, self.high))
        unit = f" {entry.unit}" if entry.unit else ""
        return (
            f"{entry.symbol} {value:.{entry.decimals}f}{unit} under {self.protocol} "
            f"(expected {low:g} to {high:g})"
        )


@dataclass(frozen=True)
class Acceptance:
    """Every check of one model."""

    suite: str
    model: str
    checks: tuple[Check, ...]

    @property
    def accepted(self) -> bool:
        """Whether every check holds."""
        return all(check.within for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.within)

    def require(self) -> None:
        """Refuse a model that does not score as expected.

        Raises:
            BenchError: a check fails; all failed ones are named.
        """
        if not self.accepted:
            raise BenchError(
                f"model '{self.model}' does not score as others report at full precision: "
                f"{'; '.join(map(str, self.failed))}. Its students are not trained. Find the "
                f"difference first ({USUAL_CAUSES}), or go on all the same with "
                "`--config acceptance=report`, which says so in every table"
            )

    def asdict(self) -> dict[str, Any]:
        """Content of ``acceptance.json``."""
        return {
            "suite": self.suite,
            "model": self.model,
            "accepted": self.accepted,
            "checks": [{**asdict(check), "within": check.within} for check in self.checks],
        }

    def sentence(self) -> str:
        """One line for the notes of a table."""
        if self.accepted:
            return f"Full-precision baseline as expected: {'; '.join(map(str, self.checks))}."
        return (
            "FULL-PRECISION BASELINE OUT OF RANGE, no row of this table is to be trusted: "
            f"{'; '.join(map(str, self.failed))}."
        )


def judge(layout: Layout, entry: SuiteModel) -> Acceptance:
    """Compare a model's baselines with their ranges.

    Args:
        layout: where the metrics files are.
        entry: the suite's selection for the model.

    Raises:
        BenchError: nothing is expected of the model, or a metrics file is missing or another
            cell's.
    """
    expected = [baseline for baseline in entry.baselines if baseline.expect]
    if not expected:
        raise BenchError(
            f"model '{entry.model}' has no baseline with expected values; list them under "
            "'baselines' in the suite's file"
        )
    checks = [check for baseline in expected for check in _checks(layout, baseline)]
    return Acceptance(expected[0].cell.suite, entry.model, tuple(checks))


def _checks(layout: Layout, baseline: Baseline) -> list[Check]:
    values = read_own(layout, layout.metrics(baseline.cell), baseline.cell)["values"]
    return [
        Check(baseline.cell.protocol, metric, values[metric], low, high)
        for metric, (low, high) in baseline.expect.items()
    ]


def read_acceptance(path: Path) -> Acceptance:
    """Read an ``acceptance.json``.

    Raises:
        BenchError: the file is missing or holds something else.
    """
    content = read_json(path)
    try:
        checks = [
            Check(*(entry[key] for key in ("protocol", "metric", "value", "low", "high")))
            for entry in content["checks"]
        ]
        return Acceptance(content["suite"], content["model"], tuple(checks))
    except (KeyError, TypeError) as error:
        raise BenchError(f"{path} holds no acceptance ({error}); delete it and run again") from None
