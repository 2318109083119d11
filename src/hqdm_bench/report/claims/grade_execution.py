"""Sentences about execution in integers, graded on how each student drew its images."""

from collections.abc import Callable

from hqdm_bench.report.claims.material import Material
from hqdm_bench.report.claims.specs import Claim
from hqdm_bench.report.claims.verdicts import Count, Grade, grade_counts, not_run
from hqdm_bench.report.results import CellResult

__all__ = ["EXECUTION_KINDS"]

UNIT = "of its students drawn in integers"


def _integer_execution(claim: Claim, material: Material) -> Grade:
    """Share of a row's students whose every quantized layer ran on integers."""
    counts, evidence = [], []
    for cells in claim.cells:
        for spec in material.models(cells.table):
            for method in claim.methods:
                for bits in cells.bits:
                    results = material.cells(spec.name, method, bits)
                    drawn = [ran for result in results if (ran := _ran(result)) is not None]
                    if drawn:
                        share = sum(drawn) / len(drawn)
                        row = f"{spec.name}, {method}, {bits.label}"
                        counts.append(Count(row, share, UNIT, share == 1))
                        evidence.append(material.layout.metrics(results[0].cell))
    if not counts:
        return not_run(
            "No student this sentence speaks of was drawn in integers: the suite does not ask for "
            "it, or the processor does not multiply bytes exactly."
        )
    return grade_counts(counts, evidence, "rows")


def _ran(result: CellResult) -> bool | None:
    """Whether a student drew in integers; None if it was not asked to, or the machine cannot."""
    record = (result.metrics or {}).get("engine")
    if record is None:
        return None
    if record["engine"] == "integer":
        return True
    # What stands against the integers of a student names one of its layers.
    return False if record["why"].startswith("layer '") else None


EXECUTION_KINDS: dict[str, Callable[[Claim, Material], Grade]] = {
    "integer_execution": _integer_execution,
}
