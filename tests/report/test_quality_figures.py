"""Quality over bit-widths, size and bit operations, and the growth of errors along sampling."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import read_json, write_json
from hqdm_bench.common.tensors import write_tensors
from hqdm_bench.report.estimates import IMAGES, SEEDS, Draws, Estimate, estimate
from hqdm_bench.report.figures import figure_inputs, write_figure
from hqdm_bench.report.plots.facets import interval_note
from hqdm_bench.report.plots.levels import level
from hqdm_bench.report.plots.quality_bits import bit_axis
from hqdm_bench.report.plots.quality_cost import pareto_front
from hqdm_bench.report.plots.style import COLOURS
from hqdm_bench.report.results import read_cell

if TYPE_CHECKING:
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

    from conftest import Project

PROTOCOL = "quick"
STUDENT_T = 4.302652729749464  # 97.5 % of t with two degrees of freedom
QUALITY = {
    "models": ["imagenet"],
    "methods": ["efficientdm", "hqdm"],
    "metrics": ["fid", "noise_error"],
}
FIGURES: dict[str, dict[str, Any]] = {
    "fig17_bits": {"kind": "quality_bits", **QUALITY},
    "fig18_growth": {
        "kind": "error_growth",
        "model": "imagenet",
        "bits": ["w4a4", "w8a3"],
        "methods": ["efficientdm", "hqdm"],
    },
    "fig19_cost": {"kind": "quality_cost", **QUALITY, "metrics": ["fid"]},
}


@pytest.fixture
def quality(project: Project) -> Project:
    """Sizes grow with the weights' bits, operations with both; errors double every step."""
    project.suite.figures.update({name: dict(entry) for name, entry in FIGURES.items()})
    for cell in project.suite.cells:
        if cell.bits.full_precision:
            continue
        path = project.layout.training(cell)
        training = read_json(path)
        training["coverage"]["weight_bytes"] = 500_000 * cell.bits.weight
        training["coverage"]["bops"] = 10**9 * cell.bits.weight * cell.bits.activation
        write_json(path, training)
        write_growth(project, cell.method, str(cell.bits), cell.seed, start=1e-4 * 2**cell.seed)
    return project


def write_growth(
    project: Project, method: str, bits: str, seed: int = 0, start: float = 1e-4, first: int = 951
) -> None:
    path = project.layout.metrics(project.cell(method, bits, seed))
    metrics = read_json(path)
    metrics["paired"]["growth"] = [
        {
            "step": step,
            "timestep": first - 250 * step,
            "latent_mse_mean": 9.0,
            "latent_mse_median": start * 2**step,
        }
        for step in range(4)
    ]
    write_json(path, metrics)


def shown(project: Project, name: str, capture: list[Figure]) -> list[Axes]:
    write_figure(name, project.root, project.suite, project.catalogue)
    return capture[-1].axes


def bars(axes: Axes) -> dict[float, tuple[float, float]]:
    """Ends of the intervals by the mean they are about."""
    containers: list[ErrorbarContainer] = axes.containers
    found = {}
    for container in containers:
        _, _, (stems,) = container.lines
        (low, high) = stems.get_segments()[0][:, 1]
        found[round(float(container.lines[0].get_ydata()[0]), 6)] = (low, high)
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_drawn_twice_to_the_same_bytes(quality: Project, name: str) -> None:
    def drawn() -> list[bytes]:
        paths = write_figure(name, quality.root, quality.suite, quality.catalogue)
        return [path.read_bytes() for path in paths]

    first = drawn()
    assert first[0].startswith(b"%PDF")
    assert drawn() == first


def test_widths_are_ordered_in_groups() -> None:
    widths = map(Bits.parse, ("w4a3", "w8a8", "w4a4", "w8a4", "w2a4", "w8a3"))
    places = bit_axis(widths)
    assert list(map(str, places)) == ["w8a8", "w8a4", "w4a4", "w2a4", "w8a3", "w4a3"]
    assert list(places.values()) == [0.0, 1.5, 2.5, 3.5, 5.0, 6.0]


def test_quality_over_widths(quality: Project, capture: list[Figure]) -> None:
    fid, noise = shown(quality, "fig17_bits", capture)
    assert [label.get_text() for label in noise.get_xticklabels()] == ["W4\nA4", "W8\nA3"]
    assert [a.get_ylabel() for a in (fid, noise)] == ["FID-like ↓", "Noise error ↓"]
    assert (fid.get_title(), noise.get_title()) == ("imagenet", "")
    half = STUDENT_T / math.sqrt(3)  # of FIDs 1, 2, 3
    assert bars(fid)[2.0] == pytest.approx((2 - half, 2 + half))
    geometric = 0.01 * 6 ** (1 / 3)
    spread = STUDENT_T * np.std(np.log([1, 2, 3]), ddof=1) / math.sqrt(3)
    low, high = bars(noise)[round(geometric, 6)]
    assert (low, high) == pytest.approx(
        (geometric * math.exp(-spread), geometric * math.exp(spread))
    )
    markers = [line for line in fid.lines if line.get_marker() in "os"]
    faces = {
        (line.get_color(), round(float(line.get_ydata()[0]), 6)): line.get_markerfacecolor()
        for line in markers
    }
    assert faces == {
        (COLOURS["vermillion"], 2.0): COLOURS["vermillion"],
        (COLOURS["vermillion"], 4.0): "white",  # one seed
        (COLOURS["blue"], 1.5): COLOURS["blue"],
        (COLOURS["blue"], 3.0): "white",
    }
    assert any(list(line.get_ydata()) == [0.5, 0.5] for line in fid.lines)  # full precision
    assert [text.get_text() for text in fid.texts] == ["FP"]
    assert not noise.texts
    (legend,) = capture[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["EfficientDM", "HQ-DM"]
    assert capture[0].get_supxlabel() == (
        "capped bars: 95 % over training seeds; hollow: one seed, no interval"
    )


def test_one_seed_has_an_interval_over_images(quality: Project, capture: list[Figure]) -> None:
    quality.catalogue.protocols[PROTOCOL] = replace(quality.protocol, bootstrap=201)
    for cell in quality.suite.cells:
        path = quality.layout.metrics(cell)
        metrics = read_json(path)
        metrics["protocol"]["bootstrap"] = 201
        write_json(path, metrics)
        skewed = 0.3 * torch.linspace(0, 1, 201, dtype=torch.float64) ** 2
        replicates = metrics["values"]["fid"] + skewed
        write_tensors(quality.layout.replicates(cell), {"fid": replicates}, {})
    fid, noise = shown(quality, "fig17_bits", capture)
    low, high = 0.3 * 0.025**2, 0.3 * 0.975**2
    mean = float(skewed.mean())  # what drawing again has added, taken off
    assert bars(fid)[4.0] == pytest.approx((4 - (high - mean), 4 + (mean - low)))  # turned round
    half = STUDENT_T / math.sqrt(3)
    assert bars(fid)[2.0] == pytest.approx((2 - half, 2 + half))  # of three seeds
    assert len(bars(noise)) == 2  # nothing to resample
    assert capture[0].get_supxlabel() == (
        "capped bars: 95 % over training seeds; plain bars: 95 % over images; "
        "hollow: one seed, no interval"
    )
    found = figure_inputs("fig17_bits", quality.root, quality.suite, quality.catalogue)
    assert {quality.layout.replicates(cell) for cell in quality.suite.cells[:-1]} <= set(found)


def test_a_skewed_quantity_has_a_geometric_interval(quality: Project) -> None:
    cells = [quality.cell("efficientdm", "w4a4", seed) for seed in range(3)]
    results = [read_cell(quality.layout, cell, with_history=False) for cell in cells]
    found = level(results, "noise_error")
    assert found is not None
    assert found.source == SEEDS
    assert found.mean == pytest.approx(0.01 * 6 ** (1 / 3))
    assert found.mean**2 == pytest.approx(found.low * found.high)
    full = read_cell(quality.layout, quality.cell("fp", "w32a32"), with_history=False)
    assert level([full], "noise_error") is None


def test_what_the_bars_are_is_said() -> None:
    replicates = np.linspace(0.9, 1.1, 200)
    images = estimate(lambda value: value, {0: Draws(1.0, replicates)})
    assert images is not None
    assert images.source == IMAGES
    seeds = Estimate(1.0, 0.5, 1.5, 3, SEEDS)
    bare = Estimate(1.0, None, None, 1, None)
    assert interval_note([images]) == "plain bars: 95 % over images"
    assert interval_note([bare, seeds, images]) == (
        "capped bars: 95 % over training seeds; plain bars: 95 % over images; "
        "hollow: one seed, no interval"
    )


def test_quality_files_are_only_what_is_shown(quality: Project) -> None:
    def inputs(name: str) -> list[str]:
        found = figure_inputs(name, quality.root, quality.suite, quality.catalogue)
        return [str(p.relative_to(quality.root / "results/tiny/imagenet")) for p in found]

    assert inputs("fig17_bits")[0] == "fp/w32a32/seed0/quick/metrics.json"
    assert len(inputs("fig17_bits")) == 1 + 2 * 8
    quality.suite.figures["fig17_bits"]["metrics"] = ["noise_error"]
    assert len(inputs("fig17_bits")) == 8
    assert all(path.endswith("training.json") for path in inputs("fig17_bits"))
    assert len(inputs("fig18_growth")) == 8
    assert all(path.endswith("metrics.json") for path in inputs("fig18_growth"))
    quality.suite.figures["fig17_bits"]["methods"] = ["hqdm", "hqdm-k4"]
    with pytest.raises(BenchError, match="no cell of method 'hqdm-k4' on imagenet; add it"):
        inputs("fig17_bits")


def test_the_front_by_hand() -> None:
    points = [(3.0, 1.0), (1.0, 5.0), (2.0, 5.0), (2.0, 4.0), (3.0, 1.0), (4.0, 2.0)]
    assert pareto_front(points, higher_is_better=False) == [1, 3, 0]
    assert pareto_front(points, higher_is_better=True) == [1]
    assert pareto_front([(1.0, 2.0), (2.0, 3.0)], higher_is_better=True) == [0, 1]
    assert pareto_front([], higher_is_better=True) == []


def test_quality_against_cost(quality: Project, capture: list[Figure]) -> None:
    size, operations = shown(quality, "fig19_cost", capture)
    assert size.get_ylabel() == "FID-like ↓"
    assert size.get_ylim() == operations.get_ylim()
    (front,) = [line for line in operations.lines if line.get_drawstyle() == "steps-post"]
    assert list(front.get_ydata()) == [1.5]  # HQ-DM at W4A4 is cheapest and best
    assert list(front.get_xdata()) == pytest.approx([16.0], abs=0.1)
    (front,) = [line for line in size.lines if line.get_drawstyle() == "steps-post"]
    assert list(front.get_xdata()) == pytest.approx([2.05], abs=0.02)  # MB, grids counted
    marked = [line for line in size.lines if line.get_marker() == "s"]
    assert [line.get_xdata()[0] for line in marked] == pytest.approx([2.05, 4.05], abs=0.02)
    assert {text.get_text() for text in operations.texts} == {"W4A4", "W8A3", "FP"}
    assert {text.get_text() for text in size.texts} == {"W4A4", "W8A3"}
    named = {text.get_text(): text.xy for text in operations.texts}
    assert named["W8A3"][1] == 3.0  # beside the better method
    words = [text.get_text() for text in capture[0].legends[0].get_texts()]
    assert words == ["EfficientDM", "HQ-DM", "Pareto front of the means"]


def test_errors_grow_along_sampling(quality: Project, capture: list[Figure]) -> None:
    above, below = shown(quality, "fig18_growth", capture)
    assert (above.get_title(loc="left"), below.get_title(loc="left")) == ("W4A4", "W8A3")
    assert (above.get_yscale(), below.get_yscale()) == ("log", "log")
    assert above.get_ylim() == below.get_ylim()
    left, right = above.get_xlim()
    assert left > 951 > 201 > right  # noise on the left
    _, line = above.lines
    assert line.get_color() == COLOURS["blue"]
    np.testing.assert_array_equal(line.get_xdata(), [951, 701, 451, 201])
    np.testing.assert_allclose(line.get_ydata(), 2e-4 * 2.0 ** np.arange(4))
    width = STUDENT_T * math.log(2) / math.sqrt(3)
    edges = above.collections[1].get_paths()[0].vertices
    first = edges[edges[:, 0] == 951, 1]
    assert first.min() == pytest.approx(2e-4 * math.exp(-width))
    assert first.max() == pytest.approx(2e-4 * math.exp(width))
    assert not below.collections  # one seed
    assert capture[0].get_supxlabel() == (
        "median over images; W4A4: mean and 95 % interval of 3 seeds; W8A3: one seed"
    )
    assert sorted(text.get_text() for text in above.texts) == ["EfficientDM", "HQ-DM"]


def test_growth_that_cannot_be_drawn(quality: Project) -> None:
    def draw() -> None:
        write_figure("fig18_growth", quality.root, quality.suite, quality.catalogue)

    cell = quality.cell("hqdm", "w4a4", 2)
    quality.write_metrics(cell)
    with pytest.raises(BenchError, match=r"metrics.json has no errors over timesteps; .*'quick'"):
        draw()
    write_growth(quality, "hqdm", "w4a4", 2, start=0.0)
    with pytest.raises(BenchError, match="an error over timesteps that is not positive"):
        draw()
    write_growth(quality, "hqdm", "w4a4", 2, first=999)
    with pytest.raises(BenchError, match="hqdm/w4a4/seed0 were sampled at different timesteps"):
        draw()


@pytest.mark.parametrize("name", ["fig17_bits", "fig19_cost"])
def test_a_figure_needs_a_metric(quality: Project, name: str) -> None:
    quality.suite.figures[name]["metrics"] = []
    with pytest.raises(BenchError, match="has nothing to show; give it models, methods and met"):
        write_figure(name, quality.root, quality.suite, quality.catalogue)


def test_inception_features_are_headed_as_such(quality: Project, capture: list[Figure]) -> None:
    suite = replace(quality.suite, extractor="inception")
    write_figure("fig17_bits", quality.root, suite, quality.catalogue)
    assert capture[-1].axes[0].get_ylabel() == "FID ↓"
