import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from hqdm_bench.catalogue import load_catalogue

ROOT = Path(__file__).parents[2]


def job_counts(lines):
    """The last job table of a dry run, rule to count."""
    start = max(i for i, line in enumerate(lines) if line.startswith("Job stats"))
    counts = Counter()
    for line in lines[start + 3 :]:
        if not (match := re.fullmatch(r"(\w+)\s+(\d+)", line.strip())):
            break
        counts[match[1]] = int(match[2])
    return counts


@pytest.fixture(scope="module")
def paper_plan(tmp_path_factory, open_project):
    """A dry run of the default target, with nothing there but the sources."""
    return open_project.copied(tmp_path_factory.mktemp("paper")).planned("--cores", "8")


def test_paper_suite_resolves_without_its_artefacts(paper_plan):
    counts = job_counts(paper_plan)
    suite = load_catalogue(ROOT).suite("paper")
    students = sum(cell.method != "fp" for cell in suite.cells)
    assert counts["train_student"] == students == 117
    # Two baselines have a protocol of their own; ImageNet's is the protocol of its cells.
    assert counts["evaluate_cell"] == len(suite.cells) + 2
    assert counts["sample_shard"] == 10 * counts["evaluate_cell"]
    assert counts["accept_baseline"] == 3
    assert counts["fetch_artefact"] == 7
    assert counts["table"] == 4
    assert counts["figure"] == len(suite.figures) == 17


def jobs(lines):
    """Jobs of a dry run as (rule, inputs, wildcards)."""
    found = []
    for line in lines:
        if match := re.fullmatch(r"(?:local)?rule (\w+):", line):
            found.append([match[1], "", ""])
        elif found and line.startswith("    input: "):
            found[-1][1] = line
        elif found and line.startswith("    wildcards: "):
            found[-1][2] = line
    return found


def test_students_wait_for_the_baselines(paper_plan):
    """Every training depends on its model's acceptance, and that on the baseline's metrics."""
    planned = jobs(paper_plan)
    training = [inputs for rule, inputs, _ in planned if rule == "train_student"]
    assert len(training) == 117
    assert all("acceptance.json" in inputs for inputs in training)
    (inputs,) = [
        inputs
        for rule, inputs, wildcards in planned
        if rule == "accept_baseline" and "model=bedrooms" in wildcards
    ]
    assert inputs.split()[1:] == [
        "results/paper/bedrooms/fp/w32a32/seed0/bedrooms-200/metrics.json"
    ]


def test_search_draws_full_precision_only(project):
    counts = job_counts(project.planned("search"))
    suite = load_catalogue(project.folder).suite("search")
    image_sets = [baseline for entry in suite.models for baseline in entry.baselines]
    assert counts["evaluate_cell"] == len(image_sets) == 16
    assert not {"train_student", "accept_baseline"} & set(counts)
    assert counts["convert_checkpoint"] == 5  # raw weights are converted beside averaged ones


def test_default_target_is_the_paper_suite(paper_plan):
    assert job_counts(paper_plan)["all"] == 1


def test_mini_trains_each_student_once_and_reuses_trajectories(project):
    counts = job_counts(project.planned("mini"))
    suite = load_catalogue(project.folder).suite("mini")
    assert counts["train_student"] == sum(cell.method != "fp" for cell in suite.cells)
    assert counts["evaluate_cell"] == len(suite.cells)
    assert counts["teacher_trajectories"] == counts["embedded_teacher"] == 3
    assert counts["mini_extractor"] == 1


def test_lint_is_clean(project):
    run = project.snakemake("--lint")
    assert run.returncode == 0, run.stdout + run.stderr


def test_bad_configuration_stops_before_any_job(project):
    path = project.folder / "config" / "protocols.yaml"
    path.write_text(path.read_text().replace("images: 32\n", "images: 0\n"))
    run = project.snakemake("--cores", "2", "smoke")
    assert run.returncode != 0
    assert "smoke-imagenet.images is 0; it must be bigger than or equal to 1" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (project.folder / "results").exists()


def test_unknown_method_in_a_suite_stops_before_any_job(project):
    path = project.folder / "config" / "suites" / "smoke.yaml"
    suite = yaml.safe_load(path.read_text())
    suite["models"][0]["cells"][1]["methods"] = ["hadamard"]
    path.write_text(yaml.safe_dump(suite))
    run = project.snakemake("--cores", "2", "smoke")
    assert run.returncode != 0
    assert "unknown method 'hadamard'" in run.stderr
    assert "Traceback" not in run.stderr
