import json
import subprocess
import sys
from pathlib import Path

import pytest

from hqdm_bench.cli import main

ROOT = Path(__file__).parents[2]
ARTEFACTS = {
    "ldm4-imagenet": "cin256-v2.ckpt",
    "inception": "weights-inception-2015-12-05-6726825d.pth",
    "lsun-churches": "church_outdoor_train_lmdb.zip",
}


@pytest.fixture
def project(tmp_path):
    """The configuration without anything that was fetched or published."""
    (tmp_path / "config").symlink_to(ROOT / "config")
    return tmp_path


def page(capsys, *arguments):
    assert main(["plan", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def document(capsys, *arguments):
    return json.loads(page(capsys, *arguments, "--json"))


def line(text, start):
    """Words of the only line that starts so."""
    (found,) = [one for one in text.splitlines() if one.strip().startswith(start)]
    return found.split()


def test_page_of_the_paper(capsys, project):
    text = page(capsys, "paper", "--root", project)
    assert line(text, "model  ")[:4] == ["model", "cells", "students", "updates"]
    for gpu in ("NVIDIA H200", "NVIDIA A100"):
        assert "GPU-hours, estimated" in " ".join(line(text, gpu))
    assert "GPU-hours, measured" not in text
    assert "core-hours, measured" in text
    flowing = " ".join(text.split())
    assert "estimated: not measured, operations at an assumed share of the published" in flowing
    assert "a GPU waits for the 5 to 12 us (assumed) that each launch takes" in flowing
    for name, file in ARTEFACTS.items():
        assert f"{project}/artefacts/{file}" in text
        assert f"\n  {name} " in text
    assert "hqdm-bench fetch NAME --from FILE" in text
    assert text.rstrip().endswith("hqdm-bench fetch --suite paper\n  snakemake --cores 8 all")
    assert max(map(len, text.splitlines())) <= 130


def test_page_of_an_embedded_suite_needs_nothing(capsys, project):
    text = page(capsys, "mini", "--root", project)
    assert "Downloads: none" in text
    assert "Missing" not in text
    assert "GPU-" not in text
    assert "core-minutes, measured" in text
    assert text.rstrip().endswith("make mini")


def test_the_published_run_stands_beside_the_unit_costs(capsys):
    time = document(capsys, "mini", "--root", ROOT)["time"]
    published = next(one for one in time if one["basis"] == "published run")
    measured = next(one for one in time if one["basis"] == "measured")
    rows = (ROOT / "results/published/mini/cost.csv").read_text().splitlines()[1:]
    spent = sum(float(row.split(",")[3]) for row in rows)
    assert published["total"][0] == pytest.approx(spent)
    # Units leave out range searches, metrics and files, and are slower on a busy machine.
    assert 1 / 3 < measured["total"][0] / spent < 3


def test_json_is_complete(capsys, project):
    value = document(capsys, "paper", "--root", project)
    assert sum(row["images"] for row in value["grid"]) == value["jobs"]["sample_shard"] * 5000
    assert value["jobs"]["train_student"] == sum(row["students"] for row in value["grid"])
    for one in value["time"]:
        low, high = one["total"]
        assert 0 < low <= high
        assert low == pytest.approx(sum(stage[0] for stage in one["stages"].values()))
    kinds = (
        "downloads",
        "teachers",
        "references",
        "trajectories",
        "students",
        "images",
        "features",
    )
    assert value["disk"]["total"] == sum(value["disk"][kind] for kind in kinds)
    assert len(value["missing"]) == len(value["downloads"]) == value["jobs"]["fetch_artefact"] == 7


def test_downloads_show_their_state(capsys, project):
    folder = project / "artefacts"
    folder.mkdir()
    (folder / ARTEFACTS["ldm4-imagenet"]).write_bytes(b"anything")
    value = document(capsys, "paper", "--root", project)
    states = {one["name"]: one["state"] for one in value["downloads"]}
    assert states.pop("ldm4-imagenet") == "present"
    assert set(states.values()) == {"missing"}
    assert "ldm4-imagenet" not in value["missing"]
    text = page(capsys, "paper", "--root", project)
    assert "Downloads: 6 of 7 files to fetch" in text
    assert str(folder / ARTEFACTS["ldm4-imagenet"]) not in text


def test_one_device(capsys, project):
    time = document(capsys, "paper", "--device", "h200", "--root", project)["time"]
    assert [one["device"] for one in time] == ["NVIDIA H200"]
    assert main(["plan", "paper", "--device", "abacus", "--root", str(project)]) == 2
    message = capsys.readouterr().err
    assert "nothing is known of a device 'abacus'; known: " in message
    assert "NVIDIA H200" in message


def test_suites_without_a_target_are_asked_for_by_table(capsys, project):
    text = page(capsys, "eight", "--root", project)
    assert text.rstrip().endswith("snakemake --cores 2 results/eight/tables/table1.md")


@pytest.mark.parametrize(
    ("suite", "command"),
    [
        ("plus", "make plus"),
        ("tuning", "make tuning"),
        ("outliers", "snakemake --cores 2 outliers"),
        # `make differences` runs suite outliers as well, which this plan does not count.
        ("differences", "snakemake --cores 2 differences"),
    ],
)
def test_studies_have_targets(capsys, project, suite, command):
    text = page(capsys, suite, "--root", project)
    assert text.rstrip().endswith(command)
    assert "and the target itself" in text


def test_a_suite_of_students_has_no_images(capsys, project):
    value = document(capsys, "outliers", "--root", project)
    assert {row["image_sets"] for row in value["grid"]} == {0}
    assert set(value["jobs"]) == {
        "embedded_teacher",
        "teacher_trajectories",
        "train_student",
        "report_table",
        "suite_page",
        "figure",
    }


def test_unknown_suite(capsys, project):
    assert main(["plan", "maxi", "--root", str(project)]) == 2
    assert "unknown suite 'maxi'" in capsys.readouterr().err


def test_check_says_what_a_run_would_say(capsys, project, monkeypatch):
    monkeypatch.setattr("hqdm_bench.cli.plan.obstacles", lambda layout, specs, jobs: ["- no luck"])
    assert main(["plan", "paper", "--check", "--root", str(project)]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("Suite paper")
    assert "- no luck" in captured.err


def test_plan_starts_without_torch_and_without_figures():
    code = (
        "import sys; from hqdm_bench.cli import main; "
        f"main(['plan', 'paper', '--root', {str(ROOT)!r}]); "
        "sys.exit(bool({'torch', 'matplotlib', 'scipy', 'numpy', 'requests'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
