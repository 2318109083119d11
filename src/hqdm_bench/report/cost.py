"""What the jobs of a suite took, from Snakemake's benchmark files."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

__all__ = ["JobCost", "job_costs"]

# The last word of a benchmark file's name; `sample3` is the fourth shard of a set.
KINDS = ("train", "sample", "evaluate", "teacher", "trajectories", "reference", "outliers")


@dataclass(frozen=True)
class JobCost:
    """All jobs of one kind.

    Attributes:
        seconds: wall-clock time, summed over the jobs.
        cpu_seconds: the same on the processor.
        peak_memory_mb: of the job that took most.
    """

    job: str
    count: int
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float


def job_costs(root: Path, suite: str) -> tuple[JobCost, ...]:
    """Costs by kind of job, in alphabetic order; empty where nothing was recorded."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for path in sorted((root / "logs" / suite / "benchmark").glob("*.tsv")):
        last = path.stem.rpartition(".")[2].rstrip("0123456789")
        with path.open(newline="", encoding="utf-8") as handle:
            found[last if last in KINDS else "extractor"] += csv.DictReader(handle, delimiter="\t")
    return tuple(
        JobCost(
            kind,
            len(jobs),
            round(sum(float(job["s"]) for job in jobs), 1),
            round(sum(float(job["cpu_time"]) for job in jobs), 1),
            round(max(float(job["max_rss"]) for job in jobs), 1),
        )
        for kind, jobs in sorted(found.items())
    )
