"""One style: sizes, fonts, colours, names beside curves, and bytes that only depend on the data."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from hqdm_bench.report.figures import write_figure
from hqdm_bench.report.plots.labels import Box, free_sides, join_remarks, spread
from hqdm_bench.report.plots.looks import FIXED, SPARE, method_looks
from hqdm_bench.report.plots.style import (
    COLOURS,
    COLUMN_WIDTH,
    SMALL,
    TEXT_WIDTH,
    new_figure,
    plain_number,
    save_figure,
    spread_over,
    styled,
)

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from conftest import Project

# Machado, Oliveira and Fernandes (2009), complete deficiency, of linear RGB.
SIMULATIONS = {
    "full vision": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
) / np.array([[0.9505], [1.0], [1.089]])


def lab(colour: str, simulation: np.ndarray) -> np.ndarray:
    """CIELAB of a colour as somebody sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(simulation @ linear, 0, 1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", SIMULATIONS)
def test_colours_differ_for_everybody(vision: str) -> None:
    seen = {name: lab(colour, SIMULATIONS[vision]) for name, colour in COLOURS.items()}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 10, (one, other)  # 2.3 is just visible
    red, green = (lab(colour, SIMULATIONS[vision]) for colour in ("#d62728", "#2ca02c"))
    assert (np.linalg.norm(red - green) > 45) == (
        vision == "full vision"
    )  # the simulation does something


def test_markers_tell_methods_apart_in_grey() -> None:
    looks = [*FIXED.values(), *SPARE]
    assert len({look.marker for look in looks}) == len(looks) == 14
    assert len({(look.colour, look.dashes) for look in looks}) == len(looks)
    ours = [FIXED[name] for name in ("efficientdm", "hqdm", "hqdm-plus", "double-hadamard")]
    assert len({look.dashes for look in ours}) == len({look.colour for look in ours}) == 4


def test_a_method_looks_the_same_everywhere() -> None:
    every = method_looks(["hqdm-plus", "hqdm-k3", "quest", "hqdm", "new", "hqdm-k4", "other"])
    assert all(method_looks([name])[name] == every[name] for name in ("hqdm", "hqdm-plus", "quest"))
    assert every["hqdm-plus"].colour == COLOURS["green"]
    assert every["hqdm-k3"].colour == every["hqdm-k4"].colour == every["hqdm"].colour
    assert len({(look.marker, look.dashes) for look in every.values()}) == len(every)
    assert (every["new"], every["other"]) == SPARE[:2]
    assert method_looks(["efficientdm"])["efficientdm"].colour == COLOURS["vermillion"]
    others = method_looks(["a", "b", "c", "d"]).values()
    assert {look.colour for look in (*FIXED.values(), *others)} <= set(COLOURS.values())


def test_values_move_apart_by_no_more_than_they_must() -> None:
    assert spread([0.1, 0.5, 0.9], 0.2) == [0.1, 0.5, 0.9]
    assert spread([0.5, 0.5], 0.2) == pytest.approx([0.4, 0.6])
    assert spread([0.6, 0.5, 0.0], 0.2) == pytest.approx([0.65, 0.45, 0.0])
    # the pair grows down onto the third and takes it along
    assert spread([0.3, 0.31, 0.18], 0.1) == pytest.approx([0.2633, 0.3633, 0.1633], abs=1e-3)
    assert spread([], 0.1) == []


def test_names_avoid_what_is_there() -> None:
    panel, size = (100.0, 100.0), (20.0, 10.0)

    def sides(*places: tuple[float, float], taken: tuple[Box, ...] = ()) -> list[str]:
        words = {(1, 0): "right", (-1, 0): "left", (0, -1): "below", (0, 1): "above"}
        chosen = free_sides(places, size, taken, panel)
        return [words.get((int(np.sign(x)), int(np.sign(y))), "corner") for x, y in chosen]

    assert sides((50, 50)) == ["right"]
    assert sides((95, 50)) == ["left"]  # would leave the panel
    assert sides((50, 50), taken=(Box(55, 40, 100, 60), Box(0, 40, 45, 60))) == ["below"]
    assert sides((50, 50), (50, 50)) == ["right", "left"]
    assert Box(0, 0, 2, 2).overlap(Box(1, 1, 3, 3)) == 1
    assert Box(0, 0, 1, 1).overlap(Box(2, 2, 3, 3)) == 0


def test_remarks_are_said_once() -> None:
    assert join_remarks({"W4A4": "one seed", "W4A3": "one seed"}) == "one seed"
    remarks = {"W4A4": "3 seeds", "W4A3": "one seed", "W8A3": "3 seeds"}
    assert join_remarks(remarks) == "W4A4, W8A3: 3 seeds; W4A3: one seed"


def test_ticks_have_no_small_exponents() -> None:
    numbers = [1e-5, 0.002, 1.0, 500.0, 20_000.0, 1e6]
    assert [plain_number(n) for n in numbers] == ["1e-5", "0.002", "1", "500", "20k", "1000k"]
    assert spread_over([1.0, 9.0])
    assert not spread_over([1.0, 7.0])
    assert not spread_over([0.0, 9.0])


@pytest.mark.parametrize("name", ["fig02_layers", "fig03_schemes", "fig03c_weight", "fig04_loss"])
def test_everything_can_be_read_at_the_width_of_a_column(
    drawn_project: Project, capture: list[Figure], name: str
) -> None:
    write_figure(name, drawn_project.root, drawn_project.suite, drawn_project.catalogue)
    (figure,) = capture
    assert figure.get_figwidth() == COLUMN_WIDTH
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible()]
    shown = [text for text in texts if text.get_text().strip()]
    assert len(shown) > 5
    assert min(text.get_fontsize() for text in shown) >= SMALL >= 7
    assert not [text.get_text() for text in shown if "$" in text.get_text()]
    page, axes = figure.bbox, figure.axes
    ticks = {tick for one in axes for tick in (*one.get_xticklabels(), *one.get_yticklabels())}
    for text in set(shown) - ticks:  # of which some lie beyond the axes, not drawn
        box = text.get_window_extent()
        inside = page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1
        assert inside, f"{text.get_text()!r} leaves the page"


def test_pictures_are_two_columns_wide(drawn_project: Project, capture: list[Figure]) -> None:
    suite = drawn_project.suite
    suite.figures["fig11_samples"]["panels"] *= 2
    write_figure("fig11_samples", drawn_project.root, suite, drawn_project.catalogue)
    assert capture[0].get_figwidth() == pytest.approx(TEXT_WIDTH)


def test_fonts_are_embedded_as_outlines(tmp_path: Path) -> None:
    with styled():
        figure = new_figure(2.0, 1.0)
        figure.subplots().set_title("HᵀW ↓ é")
        pdf, _ = save_figure(figure, tmp_path / "text")
    content = pdf.read_bytes()
    assert b"/FontFile2" in content  # TrueType
    assert b"/Type3" not in content


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from hqdm_bench.report.plots.style import new_figure, save_figure, styled\n"
        "with styled():\n"
        "    figure = new_figure(2, 1)\n"
        "    axes = figure.subplots()\n"
        "    axes.plot([1, 2], label='max |x|'); axes.legend()\n"
        "    save_figure(figure, Path(sys.argv[1]))\n"
        "sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    )
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": ""}
        environment.pop("SOURCE_DATE_EPOCH")
        command = [sys.executable, "-c", code, str(tmp_path / seed)]
        assert subprocess.run(command, env=environment).returncode == 0
    for suffix in ("pdf", "png"):
        first, second = (tmp_path / f"{seed}.{suffix}" for seed in ("1", "2"))
        assert first.read_bytes() == second.read_bytes()


def test_the_png_has_300_dots_an_inch(tmp_path: Path) -> None:
    from PIL import Image

    with styled():
        _, png = save_figure(new_figure(2.0, 1.5), tmp_path / "empty")
        _, small = save_figure(new_figure(2.0, 1.5), tmp_path / "small", dpi=200)
    assert Image.open(png).size == (600, 450)
    assert Image.open(small).size == (400, 300)


def test_drawing_leaves_the_settings_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    with styled():
        save_figure(new_figure(1.0, 1.0), tmp_path / "empty")
    assert dict(mpl.rcParams) == before


def test_a_name_with_dots_keeps_them(tmp_path: Path) -> None:
    with styled():
        paths = save_figure(new_figure(1.0, 1.0), tmp_path / "fig05.1")
    assert [path.name for path in paths] == ["fig05.1.pdf", "fig05.1.png"]
