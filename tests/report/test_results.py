"""Reading results: whole, of the right cell, or an error that says what to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.results import ResultSet, read_history

if TYPE_CHECKING:
    from conftest import Project

W4A4 = Bits(4, 4)


def test_everything_is_read(project: Project) -> None:
    results = ResultSet.load(project.root, project.suite)
    assert [result.cell for result in results.results] == list(project.suite.cells)
    student = results.select(method="hqdm", bits=W4A4)[2]
    assert student.value("fid") == 2.6
    assert student.value("noise_error") == pytest.approx(0.026)
    assert student.value("psnr_median") == pytest.approx(27.4)
    assert student.history is not None
    np.testing.assert_array_equal(student.history.step, [1, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(student.history.timestep, [501, 1, 501, 1, 501, 1])
    np.testing.assert_array_equal(student.history.loss, [211, 210, 221, 220, 231, 230])


def test_full_precision_has_metrics_only(project: Project) -> None:
    (result,) = ResultSet.load(project.root, project.suite).select(method="fp")
    assert result.training is None
    assert result.history is None
    assert result.value("fid") == 0.5
    assert result.value("noise_error") is None
    assert result.value("psnr_median") is None


def test_by_seed(project: Project) -> None:
    results = ResultSet.load(project.root, project.suite)
    found = results.by_seed("imagenet", "efficientdm", W4A4, "fid")
    assert found == {0: 1.0, 1: 2.0, 2: 3.0}
    assert results.by_seed("imagenet", "fp", Bits(32, 32), "noise_error") == {}


def test_select_sorts_by_seed_within_a_row(project: Project) -> None:
    results = ResultSet.load(project.root, project.suite)
    shuffled = ResultSet(project.suite, results.results[::-1])
    assert [(result.cell.method, result.cell.seed) for result in shuffled.select(bits=W4A4)] == [
        ("hqdm-k3", 0),
        *(("hqdm", seed) for seed in range(3)),
    ] + [("efficientdm", seed) for seed in range(3)]


def test_other_models_are_not_read(project: Project) -> None:
    assert ResultSet.load(project.root, project.suite, models=["bedrooms"]).results == ()


@pytest.mark.parametrize("kind", ["metrics", "training", "history"])
def test_a_missing_file_names_its_command(project: Project, kind: str) -> None:
    path = getattr(project.layout, kind)(project.cell("hqdm", "w4a4", 1))
    path.unlink()
    shown = path.relative_to(project.root)
    with pytest.raises(BenchError) as error:
        ResultSet.load(project.root, project.suite)
    assert str(error.value) == f"{shown} does not exist; `snakemake {shown}` makes it"


def test_results_of_another_cell_are_refused(project: Project) -> None:
    cell, other = project.cell("hqdm", "w4a4", 1), project.cell("hqdm", "w4a4", 2)
    project.layout.metrics(other).replace(project.layout.metrics(cell))
    with pytest.raises(BenchError, match=r"not written for cell tiny/imagenet/hqdm/w4a4/seed1"):
        ResultSet.load(project.root, project.suite)


def test_unknown_and_missing_quantities(project: Project) -> None:
    cell = project.cell("hqdm", "w4a4", 1)
    project.write_metrics(cell, values={"fid": 1.0})
    result = ResultSet.load(project.root, project.suite).select(method="hqdm", bits=W4A4)[1]
    assert result.value("fid") == 1.0
    with pytest.raises(BenchError, match="have no 'sfid'"):
        result.value("sfid")
    with pytest.raises(BenchError, match="unknown quantity 'cmmd'; known: is, fid"):
        result.value("cmmd")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns \\(none\\); expected update,epoch,step,timestep,loss"),
        ("update,loss\n1,2\n", "columns update,loss"),
        ("update,epoch,step,timestep,loss\n1,1,0,1,2.0\n2,1,0,1,nan\n", "line 3: .* diverged"),
        ("update,epoch,step,timestep,loss\n1,1,0,1,two\n", "damaged"),
        ("update,epoch,step,timestep,loss\n1,1,0,1\n2,1,0,1,2.0\n", "damaged"),
    ],
)
def test_a_damaged_history_is_refused(project: Project, text: str, message: str) -> None:
    path = project.root / "history.csv"
    path.write_text(text)
    with pytest.raises(BenchError, match=message):
        read_history(path)
