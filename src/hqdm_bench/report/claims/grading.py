"""Every sentence of the paper with what its tables and what a suite say of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hqdm_bench.catalogue import Catalogue, Suite
from hqdm_bench.report.claims.arithmetic import CONTRADICTS, Finding, check
from hqdm_bench.report.claims.grade_execution import EXECUTION_KINDS
from hqdm_bench.report.claims.grade_outliers import OUTLIER_KINDS, grade_outliers
from hqdm_bench.report.claims.grade_tables import TABLE_KINDS, grade_tables, numbers_count
from hqdm_bench.report.claims.grade_training import TRAINING_KINDS
from hqdm_bench.report.claims.material import Material
from hqdm_bench.report.claims.printed import PaperTables
from hqdm_bench.report.claims.specs import Claim, read_claims
from hqdm_bench.report.claims.verdicts import NOT_IMPLIED, Grade, not_run
from hqdm_bench.report.claims.wording import rule_text, scope_text

__all__ = ["Judged", "grade_claims", "grade_material"]


@dataclass(frozen=True)
class Judged:
    """A sentence and everything said of it.

    Attributes:
        claim: the sentence.
        finding: what the paper's tables say.
        grade: what the suite's results say.
        verdict: the grade's, unless the paper's own tables contradict the sentence.
        rule: what decided, in words.
        scope: what the suite can test.
    """

    claim: Claim
    finding: Finding
    grade: Grade
    verdict: str
    rule: str
    scope: str


def grade_claims(root: Path, suite: Suite, catalogue: Catalogue) -> tuple[Judged, ...]:
    """Grade every sentence on the results of a suite.

    Args:
        root: project folder with ``paper`` and ``results``.
        suite: whose results.
        catalogue: for titles and data sets.

    Raises:
        BenchError: the paper's data or a result is missing or damaged.
    """
    material = Material.load(root, suite, catalogue)
    return grade_material(read_claims(root), PaperTables.read(root), material)


def grade_material(
    claims: Sequence[Claim], tables: PaperTables, material: Material
) -> tuple[Judged, ...]:
    """The same on what has been read."""
    return tuple(_judge(claim, check(claim, claims, tables), tables, material) for claim in claims)


def _judge(claim: Claim, finding: Finding, tables: PaperTables, material: Material) -> Judged:
    grade = _grade(claim, tables, material)
    return Judged(
        claim,
        finding,
        grade,
        NOT_IMPLIED if finding.verdict == CONTRADICTS else grade.verdict,
        rule_text(claim, material, numbers_count(claim, material)),
        scope_text(claim, material),
    )


def _grade(claim: Claim, tables: PaperTables, material: Material) -> Grade:
    if claim.kind in TABLE_KINDS:
        return grade_tables(claim, material, tables)
    if claim.kind in OUTLIER_KINDS:
        return grade_outliers(claim, material)
    if claim.kind in TRAINING_KINDS:
        return TRAINING_KINDS[claim.kind](claim, material)
    if claim.kind in EXECUTION_KINDS:
        return EXECUTION_KINDS[claim.kind](claim, material)
    return not_run(f"It needs {claim.needs}.")
