"""Bold is earned: ahead of every other row of the bit-width by paired intervals."""

from __future__ import annotations

import csv
import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hqdm_bench.catalogue import Bits
from hqdm_bench.report.best import leaders
from hqdm_bench.report.estimates import Draws, Sample
from hqdm_bench.report.tables import write_table

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Project

W4A4, W8A3 = Bits(4, 4), Bits(8, 3)


def seeds(*values: float) -> Sample:
    return {seed: Draws(value) for seed, value in enumerate(values)}


def led(**rows: Sample) -> set[str]:
    """Rows that lead in FID at one bit-width."""
    found = leaders({(W4A4, name): {"fid": values} for name, values in rows.items()})
    return {name for (_, name), keys in found.items() if keys}


def test_a_clear_lead() -> None:
    assert led(a=seeds(1.0, 1.1, 1.2), b=seeds(2.0, 2.1, 2.3), c=seeds(3.0, 3.1, 3.3)) == {"a"}


def test_one_rival_too_close_and_nobody_leads() -> None:
    assert led(a=seeds(1.0, 1.1, 1.2), b=seeds(0.9, 1.2, 1.25), c=seeds(3.0, 3.1, 3.3)) == set()


def test_a_rival_of_one_seed_leaves_it_open() -> None:
    assert led(a=seeds(1.0, 1.1, 1.2), b=seeds(9.0)) == set()
    near = np.random.default_rng(0).normal(scale=0.1, size=200)
    images = {0: Draws(9.0, 9 + near)}
    assert led(a={0: Draws(1.0, 1 + near)}, b=images) == {"a"}


def test_a_row_alone_leads_nothing_and_missing_rows_are_no_rivals() -> None:
    assert led(a=seeds(1.0, 1.1)) == set()
    assert led(a=seeds(1.0, 1.1), b={}) == set()
    assert led(a=seeds(1.0, 1.1), b=seeds(2.0, 2.1), c={}) == {"a"}


def test_the_arrow_decides() -> None:
    low, high = seeds(1.0, 1.1, 1.2), seeds(2.0, 2.1, 2.3)
    found = leaders({(W4A4, "a"): {"is": low, "fid": low}, (W4A4, "b"): {"is": high, "fid": high}})
    assert found == {(W4A4, "a"): {"fid"}, (W4A4, "b"): {"is"}}


def test_bit_widths_do_not_compete() -> None:
    samples = {(W4A4, "a"): {"fid": seeds(1.0, 1.1)}, (W8A3, "b"): {"fid": seeds(9.0, 9.1)}}
    assert set(leaders(samples).values()) == {frozenset()}


def written(project: Project) -> dict[str, str]:
    paths = write_table(1, project.root, project.suite, project.catalogue)
    return {path.suffix[1:]: path.read_text(encoding="utf-8") for path in paths}


def test_tables_set_the_best_in_bold(project: Project) -> None:
    """HQ-DM is ahead at W4A4 by -0.5 ± 0.25 over three seeds, and at W8A3 with one seed."""
    texts = written(project)
    bold = [line for line in texts["md"].splitlines() if "**" in line and line.startswith("|")]
    assert len(bold) == 1
    assert bold[0].startswith("| HQ-DM | 4/4 | 3 ")
    assert "| **1.500 ± " in bold[0]
    assert "| 75.0 ± 0.0 |" in bold[0]  # precision is the same in both
    assert "Bold: ahead of every other measured row" in texts["md"]
    assert r"\textbf{1.500 $\pm$ " in texts["tex"]
    rows = csv.DictReader(texts["csv"].splitlines())
    best = [(r["method"], r["bits"], r["metric"]) for r in rows if r["best"] == "yes"]
    assert ("hqdm", "w4a4", "fid") in best
    assert {method for method, _, _ in best} == {"hqdm"}
    assert ("hqdm", "w4a4", "precision") not in best


def test_a_worse_seed_takes_the_bold_away(project: Project) -> None:
    values = {"fid": 3.5, "sfid": 7.0, "is": 3.5, "precision": 0.75, "recall": 0.5}
    project.write_metrics(project.cell("hqdm", "w4a4", 2), values=values)
    for line in written(project)["md"].splitlines():
        if line.startswith("| HQ-DM | 4/4"):
            assert "**1." not in line.split("|")[7]


@pytest.fixture(scope="module")
def pdflatex() -> str:
    found = shutil.which("pdflatex")
    if found is None:
        pytest.skip("pdflatex is not installed")
    return found


@pytest.mark.parametrize("number", [1, 4])
def test_the_latex_compiles(project: Project, pdflatex: str, tmp_path: Path, number: int) -> None:
    write_table(number, project.root, project.suite, project.catalogue)
    table = project.layout.table("tiny", number, "tex")
    folder = tmp_path / "latex"
    folder.mkdir()
    shutil.copy(table, folder / "table.tex")
    document = (
        r"\documentclass{article}\usepackage{booktabs,graphicx}"
        r"\begin{document}\input{table}\end{document}"
    )
    (folder / "paper.tex").write_text(document, encoding="ascii")
    command = [pdflatex, "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    run = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=60)
    log = run.stdout.decode("latin-1")
    assert run.returncode == 0, log[-2000:]
    assert (folder / "paper.pdf").stat().st_size > 5000
    assert "Overfull \\hbox" not in log
