"""SIGKILL in the middle of real work: nothing half-made is kept, and the end is the same."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from hqdm_bench.catalogue import Layout, load_catalogue
from hqdm_bench.common.files import atomic_path
from hqdm_bench.common.tensors import read_tensors
from hqdm_bench.distill import stages_file

MODEL = Path("results/smoke/mini-bedrooms")
CELL = MODEL / "hqdm/w4a3/seed0"
IMAGES = CELL / "smoke-lsun"
CELL_OPTIONS = ("--method", "hqdm", "--bits", "w4a3")
TIMEOUT = 600  # seconds after which a process that does not come to an end is taken for hung
STEPS, TRAJECTORIES, EVERY = 2, 21, 10  # of the trainings; EVERY is the default of `distill`
NAMES = ("checkpoint", "student")


@pytest.fixture
def bench():
    """Start verbs on mini-bedrooms; whatever still runs at the end of a test is killed."""
    started = []

    def start(folder, verb, *options):
        command = [Path(sys.executable).parent / "hqdm-bench", verb, "--suite", "smoke"]
        command += ["--model", "mini-bedrooms", *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
        )
        watch = threading.Timer(TIMEOUT, process.kill)
        watch.start()
        started.append((process, watch))
        return process

    yield start
    for process, watch in started:
        watch.cancel()
        process.kill()
        process.wait()
        process.stderr.close()


def finish(process):
    _, message = process.communicate()
    assert process.returncode == 0, message
    return message


def kill_at_line(start, line):
    """SIGKILL as soon as a line of the log matches; again, if the work was over by then."""
    for _ in range(5):
        process = start()
        log = iter(process.stderr.readline, "")
        assert any(re.match(line, text) for text in log), f"no line {line!r}"
        process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            return
    pytest.fail("it was done five times before it could be killed")


def kill_in_write(process, target):
    """SIGKILL in the middle of writing `target`.

    The temporary file is made a pipe, from which a part is read: the writer has begun and cannot
    end.
    """
    pipe = temporary_of(target, process.pid)
    wanted, reader = 100_000, None
    while wanted > 0:
        assert process.poll() is None, process.stderr.read()
        if not pipe.is_fifo():  # also after the end of a write before this one has removed it
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.mkfifo(pipe)
                reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        elif reader is not None:
            with contextlib.suppress(BlockingIOError):
                wanted -= len(os.read(reader, wanted))
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def temporary_of(target, process):
    with contextlib.suppress(KeyError), atomic_path(target) as own:
        raise KeyError
    return own.with_name(own.name.replace(f".{os.getpid()}.", f".{process}."))


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def training_folder(smoke, tmp_path_factory):
    """A teacher and trajectories of two steps."""
    from hqdm_bench.distill import generate, save_trajectories
    from hqdm_bench.models import load_latent_diffusion

    folder = tmp_path_factory.mktemp("training")
    shutil.copytree(smoke.folder / "config", folder / "config")
    path = folder / "config" / "recipes.yaml"
    recipes = yaml.safe_load(path.read_text())
    recipes["smoke-lsun"] |= {"steps": STEPS, "trajectories": TRAJECTORIES}
    path.write_text(yaml.safe_dump(recipes))
    catalogue, layout = load_catalogue(folder), Layout(folder)
    teacher = layout.teacher("smoke", "mini-bedrooms")
    teacher.parent.mkdir(parents=True)
    shutil.copy(Layout(smoke.folder).teacher("smoke", "mini-bedrooms"), teacher)
    model = load_latent_diffusion(catalogue.model("mini-bedrooms"), teacher)
    trajectories = generate(model, catalogue.recipe("smoke-lsun"))
    save_trajectories(layout.trajectories("smoke", "mini-bedrooms"), trajectories)
    return folder


def test_training_killed_in_its_writes_ends_with_the_same_bytes(training_folder, bench, tmp_path):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    for folder in (killed, undisturbed):
        shutil.copytree(training_folder, folder)
    options = (*CELL_OPTIONS, "--device", "cpu")
    reference = bench(undisturbed, "train", *options)

    checkpoint, student = (killed / CELL / f"{name}.safetensors" for name in NAMES)
    first = bench(killed, "train", *options)
    wait_for(checkpoint, first)
    kill_in_write(first, checkpoint)
    left = temporary_of(checkpoint, first.pid)
    kept = {path.name for path in (killed / CELL).iterdir()}
    assert kept == {checkpoint.name, stages_file(checkpoint).name, left.name}
    tensors, header = read_tensors(checkpoint)  # the one before: whole
    assert header["done"] == len(tensors["losses"]) == EVERY * STEPS

    second = bench(killed, "train", *options)
    line = second.stderr.readline()
    kill_in_write(second, student)
    assert re.match(rf"distill hqdm w4a3: {EVERY * STEPS + 1}/{TRAJECTORIES * STEPS} ", line)
    assert not student.exists()
    assert not left.exists()
    assert read_tensors(checkpoint)[1]["done"] == TRAJECTORIES * STEPS

    assert "distill hqdm w4a3: done" in finish(bench(killed, "train", *options))
    finish(reference)
    files, others = contents(killed / CELL), contents(undisturbed / CELL)
    assert sorted(files) == ["cost.json", "history.csv", "student.safetensors", "training.json"]
    for found in (files, others):
        del found["cost.json"]  # the clock's
    assert files == others


# A verb, its options, the folder of its outputs, their names, and lines after which it is killed.
KILLS = [
    ("trajectories", (), MODEL, ("trajectories.safetensors",), ("trajectories of .*: 1/3",)),
    ("sample", CELL_OPTIONS, IMAGES / "samples", ("shard0.npz",), ("sample shard 0: 16/32",)),
    (
        "evaluate",
        CELL_OPTIONS,
        IMAGES,
        ("features.safetensors", "replicates.safetensors", "metrics.json"),
        ("features of .*: 16/32", "features of .*: done"),  # in the features; in the metrics
    ),
]


@pytest.mark.parametrize(("verb", "options", "folder", "names", "lines"), KILLS)
def test_killed_work_leaves_nothing_and_is_done_again(
    smoke, bench, tmp_path, verb, options, folder, names, lines
):
    shutil.copytree(smoke.folder / "config", tmp_path / "config")
    shutil.copytree(smoke.folder / MODEL, tmp_path / MODEL)
    shutil.copy(smoke.folder / MODEL.parent / "extractor.safetensors", tmp_path / MODEL.parent)
    whole = contents(smoke.folder / folder)
    others = whole.keys() - set(names)
    for line in lines:
        kill_at_line(lambda: clean_start(bench, tmp_path, verb, options, folder, names), line)
        left = {
            name: value for name, value in contents(tmp_path / folder).items() if name[0] != "."
        }
        assert others <= left.keys() < whole.keys()
        assert names[-1] not in left  # what the others are not trusted without
        assert left.items() <= whole.items()
    finish(bench(tmp_path, verb, *options))
    assert contents(tmp_path / folder) == whole


def clean_start(bench, root, verb, options, folder, names):
    for name in names:
        (root / folder / name).unlink(missing_ok=True)
    return bench(root, verb, *options)


def test_what_a_failed_repetition_takes_away_is_made_again(smoke):
    """Snakemake removes the outputs of a job before it repeats it, and again when it fails.

    The tables of the last run are still there then. Images may be missing: they are only worth
    drawing again when something is to be measured on them.
    """
    results = smoke.folder / "results/smoke"
    metrics = results / "mini-bedrooms/hqdm/w4a3/seed0/smoke-lsun/metrics.json"
    student = results / "mini-imagenet/hqdm-k3/w4a4/seed0/student.safetensors"
    images = results / "mini-churches/hqdm/w4a3/seed0/smoke-lsun/samples"
    aside = [(path, path.with_name(f"{path.name}.aside")) for path in (metrics, student, images)]
    for path, kept in aside:
        path.rename(kept)
    try:
        planned = jobs(smoke.planned("smoke"))
    finally:
        for path, kept in aside:
            kept.rename(path)
    assert ("evaluate_cell", "mini-bedrooms", "hqdm") in planned
    for rule in ("train_student", "sample_shard", "evaluate_cell"):
        assert (rule, "mini-imagenet", "hqdm-k3") in planned
    after = {rule for rule, _, method in planned if method is None}
    assert after == {"table", "report_table", "figure", "claims", "suite_page"}
    assert {model for _, model, method in planned if method} == {"mini-bedrooms", "mini-imagenet"}


def jobs(lines):
    """Jobs of a dry run as (rule, model, method); a table has neither."""
    found, rule = set(), None
    for line in lines:
        if line.startswith("rule "):
            rule = line.split()[1].rstrip(":")
        elif line.strip().startswith("wildcards:"):
            values = dict(re.findall(r"(\w+)=([^,\s]+)", line))
            found.add((rule, values.get("model"), values.get("method")))
    return found


@pytest.fixture
def run(project):
    """Start snakemake in a process group of its own; killed with all its jobs at the end."""
    started = []

    def start(*arguments):
        scripts = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            "PATH": scripts + os.pathsep + os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        with (project.folder / "snakemake.log").open("w") as log:
            process = subprocess.Popen(
                ["snakemake", *arguments],
                cwd=project.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        kill_group(process)


def kill_group(process):
    """SIGKILL to a process and all its children; returns when all are gone."""
    while True:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        process.poll()
        time.sleep(0.01)


def log_says(folder, pattern):
    return any(re.search(pattern, log.read_text(), re.M) for log in folder.rglob("*.log"))


@pytest.mark.slow
def test_a_killed_workflow_says_how_to_unlock_and_ends_with_the_same_results(smoke, project, run):
    first = run("--cores", "2", "smoke")
    while not log_says(project.folder / "logs", "^distill "):
        assert first.poll() is None
        time.sleep(0.01)
    kill_group(first)
    results = project.folder / "results" / "smoke"
    assert results_of(project.folder).keys() < results_of(smoke.folder).keys()

    again = project.snakemake("--cores", "2", "smoke")
    assert again.returncode != 0
    assert "Directory cannot be locked" in again.stdout + again.stderr
    assert "--unlock" in again.stdout + again.stderr
    assert project.snakemake("--unlock").returncode == 0

    # One job alone is killed, as by the kernel when memory runs out: the others go on.
    second = run("--cores", "2", "smoke")
    while not (job := running(project.folder, "evaluate")):
        assert second.poll() is None
        time.sleep(0.01)
    os.kill(job, signal.SIGKILL)
    assert second.wait() != 0
    assert "Error in rule evaluate_cell" in (project.folder / "snakemake.log").read_text()

    last = project.snakemake("--cores", "2", "smoke")
    assert last.returncode == 0, last.stderr[-4000:]
    assert results_of(project.folder) == results_of(smoke.folder)
    assert not [path for path in results.rglob("*") if ".tmp" in path.name]


def running(folder, verb):
    """Process number of a job with this verb below `folder`, or None."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if verb.encode() in words[2:3] and (process / "cwd").readlink() == folder:
                return int(process.name)
    return None


def results_of(folder):
    """All that the clock has no part in."""
    results = folder / "results" / "smoke"
    return {
        path.relative_to(results): path.read_bytes()
        for path in results.rglob("*")
        if path.suffix in (".json", ".csv", ".npz", ".md") and path.stem not in ("cost", "methods")
    }
