"""The paper's sentences: what its own tables say of them, and what a suite's results do."""

from hqdm_bench.report.claims.arithmetic import Finding, check
from hqdm_bench.report.claims.grading import Judged, grade_claims
from hqdm_bench.report.claims.specs import Claim, read_claims
from hqdm_bench.report.claims.write import write_claims

__all__ = ["Claim", "Finding", "Judged", "check", "grade_claims", "read_claims", "write_claims"]
