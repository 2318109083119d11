"""Figures of the studies: effects as a forest, noise error over the strength of outliers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.axes import Axes

from hqdm_bench.catalogue import Comparison
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.effects import Span
from hqdm_bench.report.figures import figure_inputs, write_figure
from hqdm_bench.report.plots.forest import LOOKS, axis_limits, ratio_ticks
from hqdm_bench.report.plots.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from conftest import StudyProject

FOREST = {
    "kind": "differences",
    "model": "small",
    "bits": "w4a4",
    "metrics": ["noise_error", "fid", "psnr"],
}
STRENGTH = {
    "kind": "outlier_strength",
    "models": ["out-1", "out-4"],
    "methods": ["efficientdm", "hqdm"],
    "bits": "w4a4",
}


@pytest.fixture
def forest(study: StudyProject) -> StudyProject:
    study.figures["fig01_forest"] = dict(FOREST)
    return study


@pytest.fixture
def strengths(study: StudyProject) -> StudyProject:
    study.models = {"out-1": 1.0, "out-4": 4.0}
    study.images = False
    study.comparisons = (Comparison("efficientdm", ("hqdm",)),)
    study.write("hqdm", (0.01, 0.02, 0.04))
    study.write("efficientdm", (0.1, 0.1, 0.1))
    study.figures["fig02_strength"] = dict(STRENGTH)
    return study


def shown(project: StudyProject, name: str, capture: list[Figure]) -> list[Axes]:
    write_figure(name, project.root, project.suite, project.catalogue)
    return capture[-1].findobj(Axes)


def inputs(project: StudyProject, name: str) -> list[str]:
    found = figure_inputs(name, project.root, project.suite, project.catalogue)
    return [str(path.relative_to(project.root / "results/study")) for path in found]


def test_drawn_twice_to_the_same_bytes(forest: StudyProject) -> None:
    def drawn() -> list[bytes]:
        paths = write_figure("fig01_forest", forest.root, forest.suite, forest.catalogue)
        return [path.read_bytes() for path in paths]

    first = drawn()
    assert first[0].startswith(b"%PDF")
    assert first[1].startswith(b"\x89PNG")
    assert drawn() == first


def test_the_forest_shows_the_effects(forest: StudyProject, capture: list[Figure]) -> None:
    noise, fid, psnr = shown(forest, "fig01_forest", capture)
    assert [a.get_title() for a in (noise, fid, psnr)] == [
        "Noise error ↓",
        "FID-like ↓",
        "PSNR to FP ↑\n(dB)",
    ]
    assert [a.get_xscale() for a in (noise, fid)] == ["log", "linear"]
    assert [label.get_text() for label in noise.get_yticklabels()] == [
        "against HQ-DM",
        "HQ-DM (k = 3)",
        "HQ-DM (all layers)†",
    ]
    null, interval, mean, *_ = noise.lines
    assert list(null.get_xdata()) == [1.0, 1.0]
    assert list(fid.lines[0].get_xdata()) == [0.0, 0.0]
    assert list(mean.get_xdata()) == [pytest.approx(0.5)]
    assert list(mean.get_ydata()) == [1]
    assert mean.get_marker() == LOOKS["better"][1]
    assert list(fid.lines[2].get_xdata()) == [pytest.approx(-0.5)]
    width = 4.302652729749464 * 0.1 / math.sqrt(3) * math.log(2)
    np.testing.assert_allclose(interval.get_xdata(), 0.5 * np.exp([-width, width]))
    (legend,) = capture[0].legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words[:3] == ["better", "worse", "no difference seen"]
    assert words[3].startswith("† other layers low-bit")


def test_rows_are_grouped_by_baseline(forest: StudyProject, capture: list[Figure]) -> None:
    forest.comparisons = (*forest.comparisons, Comparison("efficientdm", ("hqdm-plus",)))
    for method in ("efficientdm", "hqdm-plus"):
        forest.write(method, (0.01, 0.02, 0.04), (1.0, 2.0, 3.0))
    noise, *_ = shown(forest, "fig01_forest", capture)
    labels = noise.get_yticklabels()
    assert [label.get_text() for label in labels][3:] == ["against EfficientDM", "HQ-DM+"]
    assert [label.get_fontweight() for label in labels] == [
        "bold",
        "normal",
        "normal",
        "bold",
        "normal",
    ]
    placed = [line for line in noise.lines if list(line.get_ydata()) == [4]]
    assert [list(line.get_xdata()) for line in placed] == [[1.0]]


def test_inputs_are_only_what_is_shown(forest: StudyProject) -> None:
    forest.models = {"small": None, "other": None}
    found = inputs(forest, "fig01_forest")
    assert len(found) == len(set(found)) == 3 * 3 * 2
    assert found[:2] == [
        "small/hqdm/w4a4/seed0/training.json",
        "small/hqdm/w4a4/seed0/quick/metrics.json",
    ]
    assert all(path.startswith("small/") for path in found)
    forest.figures["fig01_forest"]["metrics"] = ["noise_error"]
    assert all(path.endswith("training.json") for path in inputs(forest, "fig01_forest"))


def test_a_forest_of_noise_errors_reads_no_metrics(forest: StudyProject) -> None:
    forest.figures["fig01_forest"]["metrics"] = ["noise_error"]
    for cell in forest.suite.cells:
        forest.layout.metrics(cell).unlink(missing_ok=True)
    pdf, _ = write_figure("fig01_forest", forest.root, forest.suite, forest.catalogue)
    assert pdf.is_file()


def test_what_a_forest_cannot_show(forest: StudyProject) -> None:
    forest.figures["fig01_forest"]["bits"] = "w8a3"
    with pytest.raises(BenchError, match="no pair to compare on small at W8A3"):
        inputs(forest, "fig01_forest")
    forest.figures["fig01_forest"]["bits"] = "w4a4"
    forest.images = False
    with pytest.raises(BenchError, match="draws no images of small; set 'images: true'"):
        write_figure("fig01_forest", forest.root, forest.suite, forest.catalogue)
    del forest.figures["fig01_forest"]["metrics"]
    with pytest.raises(BenchError, match="a differences needs 'metrics'"):
        inputs(forest, "fig01_forest")


def test_far_rows_do_not_squeeze_the_others() -> None:
    near = [Span(0.1, 0.0, 0.2), Span(-0.1, -0.2, 0.0), Span(0.05, 0.0, 0.1)]
    low, high = axis_limits([*near, Span(9.0, 8.0, 10.0)], ratio=False)
    assert -0.5 < low < -0.2
    assert 0.2 < high < 1.0
    low, high = axis_limits([Span(9.0, 8.0, 10.0)], ratio=False)
    assert low < 0 < 10 < high
    low, high = axis_limits([Span(2.0, 1.0, 4.0)], ratio=True)
    assert low < 1 < 4 < high
    low, high = axis_limits([Span(0.0, 0.0, 0.0)], ratio=False)
    assert low < 0 < high


def test_a_row_beyond_the_axis_is_written_out(forest: StudyProject, capture: list[Figure]) -> None:
    forest.comparisons = (Comparison("hqdm", ("hqdm-k3", "hqdm-plus", "hqdm-all-low-bit")),)
    forest.write("hqdm-plus", (0.009, 0.02, 0.04), (1.1, 2.0, 3.0))
    forest.write("hqdm-all-low-bit", (1.0, 2.0, 4.0), (51.0, 52.0, 53.0))
    noise, fid, psnr = shown(forest, "fig01_forest", capture)
    assert [text.get_text() for a in (noise, fid, psnr) for text in a.texts] == [
        "100",
        "50",
        "\N{MINUS SIGN}50",
    ]
    assert fid.get_xlim()[1] < 5


@pytest.mark.parametrize(
    ("limits", "ticks"),
    [
        ((0.05, 20.0), [0.1, 1.0, 10.0]),
        ((0.4, 2.5), [0.5, 1.0, 2.0]),
        ((0.7, 1.5), [0.7, 1, 1.4]),
        ((0.98, 1.5), [1, 1.2, 1.4]),
        ((0.85, 1.15), [0.9, 1, 1.1]),
        ((0.94, 1.06), [0.95, 1, 1.05]),
        ((0.99, 1.01), [1.0]),
    ],
)
def test_ratio_ticks(limits: tuple[float, float], ticks: list[float]) -> None:
    assert ratio_ticks(*limits) == pytest.approx(ticks)


@pytest.mark.parametrize("model", [None, "out-1"])
def test_noise_error_over_strength(
    strengths: StudyProject, capture: list[Figure], model: str | None
) -> None:
    if model:
        strengths.figures["fig02_strength"]["model"] = model
    (axes,) = shown(strengths, "fig02_strength", capture)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4"]
    assert [text.get_text() for text in axes.texts] == ["EfficientDM", "HQ-DM"]
    _, hqdm = axes.containers
    data, _, (stems,) = hqdm.lines
    assert list(data.get_ydata()) == pytest.approx([0.02, 0.02])
    assert list(data.get_xdata()) == pytest.approx([1, 4], rel=0.05)
    assert data.get_color() == COLOURS["blue"]
    width = 4.302652729749464 * math.log(2) / math.sqrt(3)
    ends = stems.get_segments()[0][:, 1]
    assert list(ends) == pytest.approx([0.02 * math.exp(-width), 0.02 * math.exp(width)])


def test_inputs_of_the_strength_figure(strengths: StudyProject) -> None:
    found = inputs(strengths, "fig02_strength")
    assert len(found) == 2 * 2 * 3
    assert found[0] == "out-1/efficientdm/w4a4/seed0/training.json"
    assert found[-1] == "out-4/hqdm/w4a4/seed2/training.json"
    path = strengths.root / "results/study" / found[-1]
    path.unlink()
    with pytest.raises(BenchError, match=r"out-4/hqdm/w4a4/seed2/training.json does not exist"):
        write_figure("fig02_strength", strengths.root, strengths.suite, strengths.catalogue)


def test_a_model_without_outliers_has_no_place(strengths: StudyProject) -> None:
    strengths.models["out-4"] = None
    with pytest.raises(BenchError, match="model 'out-4' has no positive outlier factor"):
        write_figure("fig02_strength", strengths.root, strengths.suite, strengths.catalogue)
    strengths.figures["fig02_strength"]["methods"] = ["hqdm-plus"]
    with pytest.raises(BenchError, match="no cell out-1/hqdm-plus/w4a4"):
        inputs(strengths, "fig02_strength")
