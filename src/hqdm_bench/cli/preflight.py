"""What would stop a run halfway, asked before its first job: no GPU, files out of reach."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hqdm_bench.artefacts import artefact_status, reachable, read_lock
from hqdm_bench.catalogue import ArtefactSpec, Catalogue, Layout

__all__ = ["gpu_problem", "obstacles", "preflight"]

TIMEOUT = 10.0  # seconds for an address to answer
TORCH_TIMEOUT = 300  # seconds to import torch, from a slow disk
GPU_PROBE = "import torch; print(torch.__version__, torch.cuda.is_available())"
FETCH_RULE = "fetch_artefact"


def gpu_problem() -> str | None:
    """Why torch has no GPU here, or None if it has one.

    torch is asked in a process of its own: the workflow has no other use for it. Where this Python
    has no torch (jobs run in environments of their own), the driver is asked.
    """
    driver = _driver_gpus()
    try:
        probe = subprocess.run(
            [sys.executable, "-c", GPU_PROBE],
            capture_output=True,
            text=True,
            timeout=TORCH_TIMEOUT,
            check=True,
        )
        torch, usable = probe.stdout.split()[-2:]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None if driver else "this machine has none"
    if usable == "True":
        return None
    if driver and os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return f"CUDA_VISIBLE_DEVICES hides those of this machine ({driver})"
    if driver:
        return f"the driver has {driver}, but torch {torch} cannot use any (is it a CPU build?)"
    return f"torch {torch} sees none on this machine"


def _driver_gpus() -> int:
    """GPUs the NVIDIA driver knows of."""
    folder = Path("/proc/driver/nvidia/gpus")
    try:
        if folder.is_dir():
            return len(list(folder.iterdir()))
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def obstacles(
    layout: Layout,
    artefacts: Sequence[ArtefactSpec],
    gpu_jobs: int,
    reach: Callable[[ArtefactSpec, float], str | None] = reachable,
    gpu: Callable[[], str | None] = gpu_problem,
) -> list[str]:
    """What stands in the way, a paragraph each.

    Args:
        layout: where files belong.
        artefacts: files the run needs; those that are there are not asked for.
        gpu_jobs: jobs that want a GPU of this machine.
        reach: says which URL of an artefact answers.
        gpu: says why there is no GPU.
    """
    found = []
    if gpu_jobs and (problem := gpu()):
        found.append(
            f"- No GPU ({gpu_jobs} of the jobs ask for one): {problem}. Run where there is one, or "
            "on a cluster (--workflow-profile profiles/slurm).\n"
            "  To run on the CPU deliberately, for core-years: snakemake --config device=cpu ..."
        )
    lost = _unreachable(layout, artefacts, reach)
    if lost:
        width = max(len(spec.name) for spec in lost)
        found.append(
            f"- Missing files that cannot be downloaded here, no address answers ({len(lost)}).\n"
            "  If you have copies, put each in its place with: hqdm-bench fetch NAME --from FILE\n"
            + "\n".join(
                f"    {spec.name:<{width}}  {layout.artefact(spec)}  ({' or '.join(spec.urls)})"
                for spec in lost
            )
        )
    return found


def _unreachable(
    layout: Layout,
    artefacts: Sequence[ArtefactSpec],
    reach: Callable[[ArtefactSpec, float], str | None],
) -> list[ArtefactSpec]:
    """Missing artefacts that cannot be downloaded now; their addresses are asked side by side."""
    lock = read_lock(layout.artefact_lock)
    missing = [
        spec
        for spec in artefacts
        if artefact_status(spec, layout.artefact(spec), lock) in ("missing", "partial")
    ]
    with ThreadPoolExecutor(max_workers=max(1, len(missing))) as pool:
        answers = pool.map(lambda spec: reach(spec, TIMEOUT), missing)
        return [spec for spec, url in zip(missing, answers, strict=True) if url is None]


def preflight(catalogue: Catalogue, root: Path, jobs: Iterable[Any], local: bool) -> str | None:
    """What stands in the way of a workflow run, as one message, or None.

    Args:
        catalogue: all catalogues.
        root: project folder.
        jobs: Snakemake's jobs that are going to run, and no others.
        local: whether they run on this machine; elsewhere GPUs are the scheduler's business.
    """
    jobs = list(jobs)
    on_gpu = sum(bool(getattr(job.resources, "gpu", 0)) for job in jobs)
    files = {job.wildcards.artefact for job in jobs if str(job.rule) == FETCH_RULE}
    artefacts = [spec for spec in catalogue.artefacts.values() if spec.file in files]
    found = obstacles(Layout(root), artefacts, on_gpu if local else 0)
    if not found:
        return None
    suites = {job.wildcards.get("suite") for job in jobs} - {None}
    plan = f"hqdm-bench plan {min(suites)}" if suites else "hqdm-bench plan SUITE"
    return "\n".join(
        [
            "This run would stop halfway, so it was not started.",
            *found,
            f"- What the run takes: {plan}",
            "- The whole study on embedded models, on this machine, two CPU cores, no network: "
            "make mini",
        ]
    )
