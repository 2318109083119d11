"""Figures: right numbers behind them, the same bytes every time, errors that say what to do."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.arrays import first_images, read_arrays
from hqdm_bench.report.figures import figure_inputs, write_figure
from hqdm_bench.report.plots.channel_maxima import draw_channel_maxima, read_channel_maxima
from hqdm_bench.report.plots.loss_curve import (
    draw_loss_curve,
    loss_at_step,
    read_losses,
    running_mean,
)
from hqdm_bench.report.plots.sample_grid import SamplePanel, draw_sample_grid, mosaic
from hqdm_bench.report.plots.style import COLOURS
from hqdm_bench.report.plots.weight_rotation import read_weights, weight_statistics
from hqdm_bench.report.results import read_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from conftest import Project

LAYER = "input_blocks.3.1.transformer_blocks.0.ff.net.2"
OTHER = "middle_block.0.in_layers.2"
NAMES = ("fig02_layers", "fig03_schemes", "fig03c_weight", "fig04_loss", "fig11_samples")


def drawn(project: Project, name: str) -> tuple[bytes, bytes]:
    pdf, png = write_figure(name, project.root, project.suite, project.catalogue)
    return pdf.read_bytes(), png.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_drawn_twice_to_the_same_bytes(drawn_project: Project, name: str) -> None:
    pdf, png = drawn(drawn_project, name)
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf
    assert png.startswith(b"\x89PNG")
    assert drawn(drawn_project, name) == (pdf, png)
    folder = drawn_project.root / "figures" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.pdf", f"{name}.png"]


def test_channel_maxima_are_read_with_their_times(drawn_project: Project) -> None:
    path = drawn_project.layout.outliers("tiny", "imagenet")
    panels = read_channel_maxima(path, [LAYER], [9, 0])
    assert [(panel.step, panel.timestep) for panel in panels] == [(9, 451), (0, 1)]
    assert panels[0].before[7] == 12.0
    np.testing.assert_array_equal(panels[0].after, np.full(64, 2.0))


def test_unknown_layers_are_named(drawn_project: Project) -> None:
    path = drawn_project.layout.outliers("tiny", "imagenet")
    with pytest.raises(BenchError, match=r"holds no 'nowhere/step0/before'; it holds input_blocks"):
        read_channel_maxima(path, ["nowhere"], [0])
    with pytest.raises(BenchError, match="at least one layer"):
        draw_channel_maxima([], drawn_project.root / "empty")


def shown(project: Project, name: str, capture: list[Figure]) -> list[Axes]:
    write_figure(name, project.root, project.suite, project.catalogue)
    return [axes for axes in capture[0].findobj(Axes) if axes.get_visible()]


def test_before_and_after_share_their_scale(drawn_project: Project, capture: list[Figure]) -> None:
    axes = shown(drawn_project, "fig02_layers", capture)
    assert len(axes) == 2 * 4  # two layers, two steps; before and after
    for before, after in zip(axes[::2], axes[1::2], strict=True):
        assert "max 12 = " in before.texts[0].get_text()
        assert after.texts[0].get_text() == "max 2 = 1.0 \N{MULTIPLICATION SIGN} median"
        assert before.get_ylim() == after.get_ylim()
        assert before.get_ylim()[1] > 12
        (bars,) = [patch for patch in before.patches if isinstance(patch, StepPatch)]
        assert bars.get_data().values.max() == 12.0
    assert [a.texts[1].get_text() for a in axes[::2]] == [
        f"{layer}\n{step}"
        for layer in (LAYER, OTHER)
        for step in ("step 0 (t = 1)", "step 9 (t = 451)")
    ]
    assert [a.get_title().strip() for a in axes[:2]] == ["before", "after"]


@pytest.mark.parametrize(
    ("change", "title", "rows"),
    [
        ({"steps": [9]}, "layer inputs at step 9 (t = 451)", [LAYER, OTHER]),
        ({"layers": [OTHER]}, f"input of {OTHER}", ["step 0 (t = 1)", "step 9 (t = 451)"]),
    ],
)
def test_rows_are_named_by_what_they_do_not_share(
    drawn_project: Project,
    capture: list[Figure],
    change: dict[str, object],
    title: str,
    rows: list[str],
) -> None:
    drawn_project.suite.figures["fig02_layers"].update(change)
    axes = shown(drawn_project, "fig02_layers", capture)
    assert capture[0].get_suptitle() == title
    assert [a.texts[1].get_text() for a in axes[::2]] == rows


def test_the_schemes_show_what_their_quantizers_see(
    drawn_project: Project, capture: list[Figure]
) -> None:
    canvas, *strips = shown(drawn_project, "fig03_schemes", capture)
    before, after = read_weights(drawn_project.layout.outliers("tiny", "imagenet"), LAYER)
    w, rotated = (f"{np.abs(weight).max():.3g}" for weight in (before, after))
    single = ["X: max 12", "XH: max 2", f"W: max {w}"]
    double = ["X: max 12", "XH: max 2", f"W: max {w}", f"HᵀW: max {rotated}"]
    assert [strip.get_title() for strip in strips] == single + double
    assert {strip.get_ylim()[1] for strip in strips[:2]} == {12.0}
    assert len({strip.get_ylim() for strip in (strips[2], *strips[5:])}) == 1
    boxes = [text.get_text() for text in canvas.texts]
    assert boxes.count("Q") == 4
    assert boxes.count("H") == 3  # back again only in the single transform
    assert boxes.count("Hᵀ") == 1


def test_the_weight_figure_counts_growing_rows(
    drawn_project: Project, capture: list[Figure]
) -> None:
    distribution, growth = shown(drawn_project, "fig03c_weight", capture)
    assert growth.get_title() == "100 % of output channels grow, median factor 1.50"
    (bars,) = [patch for patch in growth.patches if isinstance(patch, StepPatch)]
    assert bars.get_data().values.sum() == 16
    raw, rotated = (text.get_text() for text in distribution.get_legend().get_texts())
    assert raw.startswith("W: max ")
    largest = [float(text.split("max ")[1].split(",")[0]) for text in (raw, rotated)]
    assert largest[1] == pytest.approx(1.5 * largest[0], rel=0.01)


def test_loss_lines_are_means_over_seeds(project: Project, capture: list[Figure]) -> None:
    above, below = shown(project, "fig04_loss", capture)
    assert (above.get_title(loc="left"), below.get_title(loc="left")) == ("W4A4", "W8A3")
    assert capture[0].get_supylabel() == "distillation loss at step 0"
    assert capture[0].get_supxlabel() == "W4A4: mean and range of 3 seeds; W8A3: one seed"
    for line in above.lines:
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_allclose(line.get_ydata(), [110, 120, 130])
    assert len(above.lines) == len(above.collections) == len(below.lines) == 2
    ends = above.collections[0].get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == (10, 230)  # from the lowest seed to the highest
    assert {text.get_text() for text in above.texts} == {"EfficientDM", "HQ-DM"}
    assert {line.get_color() for line in above.lines} == {COLOURS["blue"], COLOURS["vermillion"]}
    assert (above.get_yscale(), below.get_yscale()) == ("log", "linear")  # 10 to 230, 10 to 30


def test_long_trainings_are_smoothed(project: Project, capture: list[Figure]) -> None:
    for cell in project.suite.cells:
        if not cell.bits.full_precision:
            project.write_history(cell, epochs=30)
    _, below = shown(project, "fig04_loss", capture)
    raw, line, *_ = below.lines
    assert raw.get_ydata()[0] == 10.0
    assert line.get_ydata()[0] == pytest.approx(30.0)  # epochs 1 to 5
    assert line.get_ydata()[10] == pytest.approx(110.0)
    assert "W4A4: mean and range of 3 seeds, running mean over 9 epochs" in (
        capture[0].get_supxlabel()
    )


def test_sample_panels(drawn_project: Project, capture: list[Figure]) -> None:
    axes = shown(drawn_project, "fig11_samples", capture)
    assert [a.get_title() for a in axes] == ["Full precision", "HQ-DM W4A4"]
    picture = axes[0].images[0].get_array()
    assert picture.shape == (3 * 96 + 2 * 6, 2 * 96 + 6, 3)  # six images in two columns
    assert picture[-1, -1, 0] == 50


def test_weight_statistics_by_hand(drawn_project: Project) -> None:
    found = weight_statistics(np.array([[1.0, -1.0, 0.0], [3.0, 0.0, -1.0]]))
    assert found.maximum == 3.0
    np.testing.assert_array_equal(found.row_maxima, [1.0, 3.0])
    # Mean 1/3; sums of squares and fourth powers about it are 34/3 and 514/9.
    assert found.kurtosis == pytest.approx((514 / 9 / 6) / (34 / 3 / 6) ** 2 - 3)
    assert weight_statistics(np.ones((2, 2))).kurtosis == 0.0
    before, after = read_weights(drawn_project.layout.outliers("tiny", "imagenet"), LAYER)
    np.testing.assert_allclose(after, 1.5 * before)


def test_kurtosis_of_a_normal_sample_is_near_zero() -> None:
    weight = np.random.default_rng(0).standard_normal((200, 500))
    assert abs(weight_statistics(weight).kurtosis) < 0.05


def test_losses_at_a_step(project: Project) -> None:
    paths = [project.layout.history(project.cell("hqdm", "w4a4", seed)) for seed in range(3)]
    np.testing.assert_array_equal(loss_at_step(read_history(paths[1]), 1), [111, 121, 131])
    np.testing.assert_array_equal(
        read_losses(paths, 0), [[10, 20, 30], [110, 120, 130], [210, 220, 230]]
    )
    with pytest.raises(BenchError, match=r"seed0/history.csv: no update at step 2; .* 0 to 1"):
        read_losses(paths, 2)
    project.write_history(project.cell("hqdm", "w4a4", 1), epochs=2)
    with pytest.raises(BenchError, match=r"differ in their number of epochs .*: 3, .*: 2"):
        read_losses(paths, 0)
    with pytest.raises(BenchError, match="at least one bit-width"):
        draw_loss_curve([], 0, project.root / "empty")


def test_running_mean_by_hand() -> None:
    found = running_mean(np.array([1.0, 2.0, 6.0, 3.0]), 3)
    np.testing.assert_allclose(found, [1.5, 3.0, 11 / 3, 4.5])


def test_mosaic_by_hand() -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None, None].repeat(96, 1).repeat(96, 2)
    picture = mosaic(images.repeat(3, 3), columns=2)
    assert picture.shape == (96 + 6 + 96, 96 + 6 + 96, 3)
    assert (picture[0, 0] == 0).all()
    assert (picture[0, 102] == 1).all()
    assert (picture[102, 0] == 2).all()
    assert (picture[:, 96:102] == 255).all()  # the gap
    assert (picture[102:, 102:] == 255).all()  # no fourth image


def test_small_images_are_enlarged_by_whole_factors() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), dtype=np.uint8)
    picture = mosaic(image, 1)
    assert picture.shape == (120, 120, 3)
    np.testing.assert_array_equal(picture[1::3, 1::3], image[0])


def test_panels_must_show_the_same_labels(drawn_project: Project) -> None:
    drawn_project.write_samples(drawn_project.cell("hqdm", "w4a4", 1), first_label=3)
    with pytest.raises(BenchError, match="'HQ-DM W4A4' and 'Full precision' do not show the same"):
        drawn(drawn_project, "fig11_samples")
    small = SamplePanel("a", np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, np.int64))
    large = replace(small, title="b", images=np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(BenchError, match="'b' and 'a'"):
        draw_sample_grid([small, large], drawn_project.root / "figure")
    with pytest.raises(BenchError, match="at least one method"):
        draw_sample_grid([], drawn_project.root / "figure")


def test_first_images_cross_shards(drawn_project: Project) -> None:
    cell = drawn_project.cell("fp", "w32a32")
    paths = [drawn_project.layout.shard(cell, shard) for shard in range(2)]
    images, labels = first_images(paths, 6)
    np.testing.assert_array_equal(images[:, 0, 0, 0], [0, 10, 20, 30, 40, 50])
    np.testing.assert_array_equal(labels, np.arange(6))
    with pytest.raises(BenchError, match="holds 8 images, the figure shows 9"):
        first_images(paths, 9)
    with pytest.raises(BenchError, match="does not go on with image 0"):
        first_images(paths[::-1], 6)


def test_damaged_files_are_refused(drawn_project: Project) -> None:
    shard = drawn_project.layout.shard(drawn_project.cell("fp", "w32a32"), 0)
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(BenchError, match="not a whole sample shard"):
        first_images([shard], 1)
    np.savez(shard, arr_0=np.zeros(1))
    with pytest.raises(BenchError, match="not a whole sample shard"):
        first_images([shard], 1)
    outliers = drawn_project.layout.outliers("tiny", "imagenet")
    outliers.write_bytes(outliers.read_bytes()[:100])
    with pytest.raises(BenchError, match="not a whole safetensors file"):
        read_arrays(outliers, [])


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_input_names_its_command(drawn_project: Project, name: str) -> None:
    inputs = figure_inputs(name, drawn_project.root, drawn_project.suite, drawn_project.catalogue)
    assert all(path.is_file() for path in inputs)
    inputs[-1].unlink()
    shown = re.escape(str(inputs[-1].relative_to(drawn_project.root)))
    with pytest.raises(BenchError, match=f"^{shown} does not exist; `snakemake {shown}` makes it$"):
        drawn(drawn_project, name)
    assert not (drawn_project.root / "figures").exists()


def test_inputs_are_only_what_is_shown(drawn_project: Project) -> None:
    def inputs(name: str) -> list[str]:
        found = figure_inputs(
            name, drawn_project.root, drawn_project.suite, drawn_project.catalogue
        )
        return [str(p.relative_to(drawn_project.root / "results/tiny/imagenet")) for p in found]

    for name in ("fig02_layers", "fig03_schemes", "fig03c_weight"):
        assert inputs(name) == ["outliers.safetensors"]
    assert len(inputs("fig04_loss")) == 3 + 3 + 1 + 1
    assert inputs("fig11_samples")[2:] == [
        f"hqdm/w4a4/seed1/quick/samples/shard{k}.npz" for k in range(2)
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "pie", "model": "imagenet"}, "figure new: unknown kind 'pie'; known: channel_"),
        ({"kind": "loss_curve", "model": "imagenet", "step": 0}, "a loss_curve needs 'bits'"),
        (
            {
                "kind": "loss_curve",
                "model": "imagenet",
                "step": 0,
                "bits": ["w2a4"],
                "methods": ["hqdm"],
            },
            "no cell imagenet/hqdm/w2a4",
        ),
    ],
)
def test_entries_that_cannot_be_drawn(
    project: Project, entry: dict[str, object], message: str
) -> None:
    project.suite.figures["new"] = entry
    try:
        with pytest.raises(BenchError, match=message):
            drawn(project, "new")
    finally:
        del project.suite.figures["new"]
    with pytest.raises(BenchError, match="no figure 'new'; it has fig02_layers"):
        drawn(project, "new")
