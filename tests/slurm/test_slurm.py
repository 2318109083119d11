"""The smoke suite through Slurm, on a cluster of one node: `pytest -m slurm` as root.

Needs the packages slurm-wlm and munge; without them the test fails, since it was asked for. With
HQDM_BENCH_SLURM_LOG=FILE the log is kept there, without the names of this machine; the committed
smoke_on_slurm.log was made so.
"""

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from hqdm_bench.catalogue import Layout, load_catalogue

ROOT = Path(__file__).parents[2]
START = Path(__file__).with_name("start_slurm.sh")
LOG_VARIABLE = "HQDM_BENCH_SLURM_LOG"
SNAKEMAKE = [
    *("snakemake", "--workflow-profile", "profiles/slurm"),
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"),
    *("--default-resources", "slurm_partition=debug", "mem_mb=2000", "runtime=60"),
    *("--quiet", "host", "reason", "--slurm-no-account", "--jobs", "4", "smoke"),
]


def environment() -> dict[str, str]:
    """What Slurm jobs inherit: this environment's programs, one thread a process."""
    scripts = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": scripts + os.pathsep + os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def without_names(text: str, folders: dict[str, str]) -> str:
    """A log without the paths, host and user of the machine that made it."""
    for folder, placeholder in sorted(folders.items(), key=lambda item: -len(item[0])):
        text = text.replace(folder, placeholder)
    text = re.sub(r"^(\s*(?:Host|User|Platform): ).*$", r"\1(removed)", text, flags=re.M)
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", "HOST", text)


def header(slurm: str, jobs: int) -> str:
    """What a reader of the log must know."""
    plugin = "snakemake-executor-plugin-slurm"
    return (
        "# The smoke suite on Slurm, one node; tests/slurm/test_slurm.py made this log.\n"
        f"# {slurm}; snakemake {version('snakemake')}; {plugin} {version(plugin)}; "
        f"Python {platform.python_version()}\n"
        f"# {jobs} jobs recorded by Slurm as completed\n"
        f"# {' '.join(SNAKEMAKE)}\n\n"
    )


@pytest.fixture
def project(tmp_path):
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("config", "workflow", "paper", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def slurm():
    started = subprocess.run([START, "start"], stderr=subprocess.PIPE, text=True)
    assert started.returncode == 0, started.stderr
    yield
    subprocess.run([START, "stop"], check=True)


def finished_jobs():
    """Job number to state, as Slurm itself has recorded them."""
    lines = subprocess.run([START, "jobs"], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"^JobId=(\d+) .*\bJobState=(\w+)", lines, flags=re.M))


@pytest.mark.slurm
def test_smoke_runs_through_slurm(project, slurm):
    run = subprocess.run(
        SNAKEMAKE,
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-6000:]

    suite, layout = load_catalogue(project).suite("smoke"), Layout(project)
    for number in suite.tables:
        assert layout.table("smoke", number, "md").stat().st_size > 100
    for name in suite.figures:
        assert layout.figure("smoke", name, "pdf").read_bytes().startswith(b"%PDF")

    total = int(re.search(r"^total\s+(\d+)$", run.stdout, flags=re.M)[1])
    submitted = re.findall(r"^Job \d+ has been submitted with SLURM jobid (\d+)", run.stdout, re.M)
    assert len(submitted) == total - 1  # the target itself is no work
    assert finished_jobs() == dict.fromkeys(submitted, "COMPLETED")

    if kept := os.environ.get(LOG_VARIABLE):
        slurm_version = subprocess.check_output(["sinfo", "--version"], text=True).strip()
        folders = {str(project): "PROJECT", sys.prefix: "ENVIRONMENT", str(ROOT): "CHECKOUT"}
        text = header(slurm_version, len(submitted)) + without_names(run.stdout, folders)
        Path(kept).write_text(text, encoding="utf-8")


def test_kept_logs_name_no_machine():
    text = "  Host: node-7.example\n  User: someone\n  Platform: Linux-1\nran in /a/b/c and /a/b\n"
    assert without_names(text, {"/a/b": "CHECKOUT", "/a/b/c": "PROJECT"}) == (
        "  Host: (removed)\n  User: (removed)\n  Platform: (removed)\nran in PROJECT and CHECKOUT\n"
    )
