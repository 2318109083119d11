"""A training that is killed leaves nothing half-made and ends where an undisturbed one does."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hqdm_bench.distill import stages_file

CELL = Path("results/smoke/mini-bedrooms/hqdm/w4a3/seed0")
TIMEOUT = 120


@pytest.fixture
def folders(smoke, tmp_path):
    """Two projects with a teacher and trajectories, whose students train for 12 trajectories."""
    for name in ("killed", "undisturbed"):
        folder = tmp_path / name
        shutil.copytree(smoke.folder / "config", folder / "config")
        recipes = folder / "config" / "recipes.yaml"
        text = recipes.read_text()
        assert text.count("  trajectories: 1\n") == 1
        recipes.write_text(text.replace("  trajectories: 1\n", "  trajectories: 12\n"))
        for file in ("teacher.safetensors", "trajectories.safetensors"):
            target = folder / CELL.parents[2] / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(smoke.folder / CELL.parents[2] / file, target)
    return tmp_path / "killed", tmp_path / "undisturbed"


def train(folder):
    command = [Path(sys.executable).parent / "hqdm-bench", "train", "--suite", "smoke"]
    command += ["--model", "mini-bedrooms", "--method", "hqdm", "--bits", "w4a3", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def test_killed_training_continues_to_the_same_bytes(folders):
    killed, undisturbed = folders
    reference = train(undisturbed)
    first = train(killed)
    checkpoint = killed / CELL / "checkpoint.safetensors"
    deadline = time.monotonic() + TIMEOUT
    while not checkpoint.exists() and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    _, message = first.communicate(timeout=TIMEOUT)
    assert first.returncode == 130, message
    assert "interrupted; nothing unfinished was kept" in message
    assert "Traceback" not in message
    kept = {path.name for path in (killed / CELL).iterdir()}
    assert kept - {stages_file(checkpoint).name} == {checkpoint.name}

    again = train(killed)
    _, message = again.communicate(timeout=TIMEOUT)
    assert again.returncode == 0, message
    _, message = reference.communicate(timeout=TIMEOUT)
    assert reference.returncode == 0, message
    names = sorted(path.name for path in (killed / CELL).iterdir())
    assert names == ["cost.json", "history.csv", "student.safetensors", "training.json"]
    for name in names[1:]:
        assert (killed / CELL / name).read_bytes() == (undisturbed / CELL / name).read_bytes()
