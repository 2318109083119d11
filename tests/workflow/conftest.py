import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Project:
    """The workflow in a folder of its own: tests do not touch the checkout's results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def copied(cls, folder: Path) -> "Project":
        for name in ("Snakefile", "environment.yml"):
            shutil.copy(ROOT / name, folder / name)
        for name in ("config", "workflow", "paper", "profiles"):
            shutil.copytree(ROOT / name, folder / name)
        return cls(folder)

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        scripts = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            "PATH": scripts + os.pathsep + os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        return subprocess.run(
            ["snakemake", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def planned(self, *arguments: str) -> list[str]:
        """Outputs a dry run would make, one line `rule: wildcards` per job."""
        run = self.snakemake("--dry-run", *arguments)
        assert run.returncode == 0, run.stderr
        return run.stdout.splitlines()


@pytest.fixture(scope="session")
def open_project():
    """A project in a folder that is there already."""
    return Project


@pytest.fixture
def project(tmp_path):
    return Project.copied(tmp_path)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """One real run of the smoke suite, shared by the tests that look at its results."""
    project = Project.copied(tmp_path_factory.mktemp("smoke"))
    run = project.snakemake("--cores", "2", "smoke")
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return project
