"""A run that cannot finish here says so before its first job, and only then."""

import re
import stat
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import yaml

from hqdm_bench.catalogue import Layout, load_catalogue
from hqdm_bench.catalogue.jobs import TARGETS, suite_jobs
from hqdm_bench.cli import preflight as module
from hqdm_bench.cli.preflight import gpu_problem, obstacles, preflight

STOPPED = "This run would stop halfway, so it was not started."
NOWHERE = "https://nowhere.invalid/file"


@pytest.fixture
def offline(project):
    """Addresses that answer nowhere, so that the test does not depend on the network."""
    path = project.folder / "config" / "artefacts.yaml"
    artefacts = yaml.safe_load(path.read_text())
    for entry in artefacts.values():
        entry["urls"] = [NOWHERE]
    path.write_text(yaml.safe_dump(artefacts))
    return project


def rule_counts(text):
    """The job table of a dry run, rule to count."""
    table = text.split("Job stats:")[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.M)}


@pytest.mark.parametrize("suite", ["smoke", "mini", "paper", "search"])
def test_a_dry_run_goes_on_and_lists_the_jobs_of_the_plan(offline, suite):
    text = "\n".join(offline.planned("--cores", "8", TARGETS[suite]))
    assert STOPPED not in text
    planned = rule_counts(text)
    assert planned.pop(TARGETS[suite]) == 1
    catalogue = load_catalogue(offline.folder)
    jobs = suite_jobs(catalogue, catalogue.suite(suite))
    assert jobs.by_rule() == planned
    for cell in jobs.images:
        assert f"model={cell.model}, method={cell.method}, bits={cell.bits}" in text
    if suite in ("smoke", "mini"):
        assert jobs.gpu_jobs == 0


def test_one_dry_run_of_the_studies_lists_the_jobs_of_their_plans(offline):
    studies = ("differences", "outliers", "plus", "tuning")
    text = "\n".join(offline.planned("--cores", "2", *(TARGETS[name] for name in studies)))
    planned = Counter(rule_counts(text))
    catalogue = load_catalogue(offline.folder)
    wanted: Counter[str] = Counter(TARGETS[name] for name in studies)
    for name in studies:
        jobs = suite_jobs(catalogue, catalogue.suite(name))
        wanted.update(jobs.by_rule())
        assert jobs.gpu_jobs == 0
    assert planned == wanted
    # Students of suites without images wait for nothing that measures images.
    for name in ("outliers", "tuning"):
        for kind in ("extractor.safetensors", "reference.safetensors", "metrics.json", "shard"):
            assert not re.search(rf"results/{name}/\S*{kind}", text)


def test_all_stops_before_its_first_job(offline, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = offline.snakemake("--cores", "8", "all")
    output = run.stdout + run.stderr
    assert run.returncode == 1
    assert output.count(STOPPED) == 1
    catalogue = load_catalogue(offline.folder)
    gpu_jobs = suite_jobs(catalogue, catalogue.suite("paper")).gpu_jobs
    assert f"- No GPU ({gpu_jobs} of the jobs ask for one): " in output
    assert "--config device=cpu" in output
    assert "no address answers (7)" in output
    assert "hqdm-bench fetch NAME --from FILE" in output
    for name, spec in catalogue.artefacts.items():
        assert re.search(rf"{name} +artefacts/{re.escape(spec.file)}  \({NOWHERE}\)", output)
    assert "hqdm-bench plan paper" in output
    assert "make mini" in output
    assert "Traceback" not in output
    assert not (offline.folder / "results").exists()
    assert not (offline.folder / "artefacts").exists()
    assert not list((offline.folder / ".snakemake").glob("locks/*"))


def test_files_that_can_be_had_are_fetched_without_a_question(offline):
    """With the GPU waived and a file in reach, the run begins; its content is another matter."""
    source = offline.folder / "source.pth"
    source.write_bytes(b"not the published weights")
    path = offline.folder / "config" / "artefacts.yaml"
    artefacts = yaml.safe_load(path.read_text())
    artefacts["inception"]["urls"] = [source.as_uri()]
    path.write_text(yaml.safe_dump(artefacts))
    file = f"artefacts/{artefacts['inception']['file']}"
    run = offline.snakemake("--cores", "1", "--config", "device=cpu", "--retries", "0", "--", file)
    output = run.stdout + run.stderr
    assert STOPPED not in output
    assert "Error in rule fetch_artefact" in output


def test_embedded_suites_are_never_asked(offline):
    run = offline.snakemake("--cores", "1", "results/smoke/extractor.safetensors")
    assert run.returncode == 0, run.stderr
    assert STOPPED not in run.stdout + run.stderr


def job(rule, gpu=0, **wildcards):
    names = SimpleNamespace(**wildcards)
    names.get = wildcards.get
    return SimpleNamespace(rule=rule, wildcards=names, resources=SimpleNamespace(gpu=gpu))


@pytest.fixture
def catalogue(project):
    return load_catalogue(project.folder)


def no_gpu():
    return "there is none"


def nowhere(spec, timeout):
    return None


def test_only_what_is_going_to_run_counts(catalogue, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "gpu_problem", no_gpu)
    tables = [job("table", suite="paper"), job("all")]
    assert preflight(catalogue, tmp_path, tables, local=True) is None


def test_gpus_elsewhere_are_the_schedulers_business(catalogue, tmp_path):
    jobs = [job("train_student", gpu=1, suite="paper")]
    assert preflight(catalogue, tmp_path, jobs, local=False) is None


def test_a_file_that_is_there_is_not_asked_for(catalogue, tmp_path):
    layout, spec = Layout(tmp_path), catalogue.artefact("inception")
    assert len(obstacles(layout, [spec], 0, nowhere, no_gpu)) == 1
    layout.artefact(spec).parent.mkdir()
    layout.artefact(spec).write_bytes(b"a copy")
    assert obstacles(layout, [spec], 0, nowhere, no_gpu) == []


def test_a_file_within_reach_is_no_obstacle(catalogue, tmp_path):
    specs = list(catalogue.artefacts.values())
    assert obstacles(Layout(tmp_path), specs, 0, lambda spec, timeout: spec.urls[0]) == []
    (text,) = obstacles(
        Layout(tmp_path), specs, 0, lambda spec, _: None if spec.kind == "images" else "url"
    )
    assert "(1)" in text
    assert "lsun-churches" in text
    assert "inception" not in text


def test_gpu_is_asked_for_once_and_only_if_needed(catalogue, tmp_path):
    asked = []

    def gpu():
        asked.append(1)
        return "none"

    assert obstacles(Layout(tmp_path), [], 0, nowhere, gpu) == []
    assert asked == []
    (text,) = obstacles(Layout(tmp_path), [], 3, nowhere, gpu)
    assert asked == [1]
    assert text.startswith("- No GPU (3 of the jobs ask for one): none.")


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("python", "driver", "problem"),
    [
        ("echo 2.15.0 True", 1, None),
        ("echo a warning on a line of its own; echo 2.15.0 True", 0, None),
        ("echo 2.15.0 False", 0, "torch 2.15.0 sees none on this machine"),
        ("echo 2.15.0 False", 2, "the driver has 2, but torch 2.15.0 cannot use any"),
        ("exit 1", 0, "this machine has none"),
        ("exit 1", 1, None),  # no torch beside snakemake: the driver's word counts
        ("echo odd", 0, "this machine has none"),
    ],
)
def test_gpu_detection(tmp_path, monkeypatch, python, driver, problem):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", python))
    monkeypatch.setattr(module, "_driver_gpus", lambda: driver)
    found = gpu_problem()
    assert found is None if problem is None else problem in found


def test_hidden_gpus_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", "echo 2.15.0 False"))
    monkeypatch.setattr(module, "_driver_gpus", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_problem() == "CUDA_VISIBLE_DEVICES hides those of this machine (4)"


def test_the_driver_is_asked_through_its_program(tmp_path, monkeypatch):
    program(tmp_path / "nvidia-smi", "echo 'GPU 0: One (UUID: x)'; echo 'GPU 1: Two (UUID: y)'")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module._driver_gpus() == 2
