"""Copy the small files of a finished run to results/published and figures/published.

    python tools/publish.py mini

Tables, claims, figures as PNG, the page, and of every cell its metrics with their replicates, its
training record, cost and loss history are copied; students, images and features are not. `run.json`
says what made them, `cost.csv` what each kind of job took.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import astuple
from importlib.metadata import version
from pathlib import Path

from hqdm_bench.report.cost import job_costs

KEPT = (
    "metrics.json",
    "replicates.safetensors",
    "training.json",
    "cost.json",
    "history.csv",
    "teacher.json",
    "extractor.json",
    "acceptance.json",
    "baselines.md",
    "baselines.csv",
    "claims.json",
    "claims.md",
    "index.html",
)
PACKAGES = ("hqdm-bench", "numpy", "scipy", "snakemake", "torch")


def main() -> int:
    """Publish one suite; 2 if it has not been run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite")
    suite = parser.parse_args().suite
    results, figures = Path("results") / suite, Path("figures") / suite
    tables = sorted((results / "tables").glob("*.*"))
    if not tables:
        print(f"no tables under {results}; run `make {suite}` first", file=sys.stderr)
        return 2
    target = Path("results/published") / suite
    record = json.dumps(provenance(suite), indent=2) + "\n"
    write_page(results, suite, record)
    shutil.rmtree(target, ignore_errors=True)
    for path in [*tables, *(path for name in KEPT for path in results.rglob(name))]:
        copy(path, target / path.relative_to(results))
    shutil.rmtree(Path("figures/published") / suite, ignore_errors=True)
    for path in figures.glob("*.png"):
        copy(path, Path("figures/published") / suite / path.name)
    (target / "run.json").write_text(record)
    write_cost(suite, target / "cost.csv")
    return 0


def write_page(results: Path, suite: str, record: str) -> None:
    """Write the page again, with the commit and versions of the record beside it."""
    if not (results / "index.html").exists():
        return
    own = results / "run.json"
    own.write_text(record)
    try:
        subprocess.run(["hqdm-bench", "page", "--suite", suite], check=True)
    finally:
        own.unlink()


def copy(source: Path, target: Path) -> None:
    """Copy a file into a folder that may not exist yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def provenance(suite: str) -> dict[str, object]:
    """Machine and versions, without anything that names the host."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "suite": suite,
        "commit": commit,
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def write_cost(suite: str, path: Path) -> None:
    """Jobs, seconds and memory by kind of job."""
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["job", "count", "seconds", "cpu_seconds", "peak_memory_mb"])
        writer.writerows(map(astuple, job_costs(Path(), suite)))


if __name__ == "__main__":
    sys.exit(main())
