"""Scenes: determinism, independence of streams, resolution, geometry of the distance fields."""

import numpy as np
import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.mini import scene_fields as field
from hqdm_bench.models.mini.scene_canvas import Canvas, Draws, hsv
from hqdm_bench.models.mini.scenes import SCENES, STREAMS, SceneSet, render, to_tensor

# Mean grey level of the first eight 32x32 training images. A change means new data: raise REVISION.
MEAN_LEVELS = {
    "ball": 141.393,
    "cube": 145.216,
    "checker": 125.299,
    "stripes": 113.839,
    "ring": 154.088,
    "flower": 91.077,
    "sunset": 116.303,
    "tree": 140.802,
    "star": 80.38,
    "house": 148.266,
    "bedroom": 149.624,
    "church": 150.854,
}


@pytest.mark.parametrize("name", SCENES)
def test_image_does_not_depend_on_its_batch(name: str) -> None:
    together = render(name, 3, range(7), 32)
    shuffled = render(name, 3, [5, 0, 6], 32)
    assert np.array_equal(shuffled, together[[5, 0, 6]])
    assert np.array_equal(render(name, 3, [4], 32)[0], together[4])


def test_image_does_not_depend_on_group_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = render("church", 0, range(6), 64)
    monkeypatch.setattr("hqdm_bench.models.mini.scenes.PIXELS_AT_ONCE", 2 * 64 * 64)
    assert np.array_equal(render("church", 0, range(6), 64), whole)


@pytest.mark.parametrize("name", SCENES)
def test_same_scene_at_twice_the_resolution(name: str) -> None:
    small = render(name, 0, range(4), 32).astype(float)
    large = render(name, 0, range(4), 64).astype(float)
    averaged = large.reshape(4, 32, 2, 32, 2, 3).mean((2, 4))
    assert (
        np.abs(averaged - small).mean() < 4.5
    )  # grey levels; edges are antialiased, not integrated
    other = render(name, 0, range(4, 8), 32).astype(float)
    assert np.abs(averaged - other).mean() > 12


def test_streams_and_seeds_are_disjoint() -> None:
    seen = {
        image.tobytes()
        for stream in STREAMS
        for seed in (0, 1)
        for image in SceneSet(("star", "bedroom"), 32, seed, stream).images(range(20))
    }
    assert len(seen) == len(STREAMS) * 2 * 20


def test_set_is_balanced_and_interleaved() -> None:
    scenes = SceneSet(("ball", "tree", "ring"), 32, 0)
    assert scenes.labels(range(4, 10)).tolist() == [1, 2, 0, 1, 2, 0]
    images = scenes.images([4, 0, 5])
    assert np.array_equal(images[0], render("tree", 0, [4], 32)[0])
    assert np.array_equal(images[1], render("ball", 0, [0], 32)[0])
    assert np.array_equal(images[2], render("ring", 0, [5], 32)[0])


def test_drawing_has_not_changed() -> None:
    levels = {name: float(render(name, 0, range(8), 32).mean()) for name in SCENES}
    assert levels == pytest.approx(MEAN_LEVELS, abs=0.01)


def test_tensor_spans_minus_one_to_one() -> None:
    pixels = np.array([[[[0, 255, 51]]]], np.uint8)
    assert to_tensor(pixels).flatten().tolist() == pytest.approx([-1.0, 1.0, -0.6])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((("ball", "bal"), 32, 0), "bal"),
        (((), 32, 0), "choose"),
        ((("ball", "ball"), 32, 0), "twice"),
        ((("ball",), 8, 0), "resolution"),
        ((("ball",), 32, 0, "test"), "stream"),
    ],
)
def test_bad_sets_are_refused(arguments: tuple, word: str) -> None:
    with pytest.raises(BenchError, match=word):
        SceneSet(*arguments)


def test_draws_cannot_be_overdrawn() -> None:
    draws = Draws(np.zeros((2, 3), np.float32))
    draws.lattice(1)
    draws.uniform(0, 1)
    draws.sign()
    with pytest.raises(IndexError):
        draws.happens(0.5)


def test_pixel_coverage_is_the_area_of_a_straight_edge() -> None:
    canvas = Canvas(1, 16)
    for position in (-0.3, 0.01, 0.4):
        mask = canvas.cover(canvas.x - position + 0 * canvas.y)
        assert mask.mean() == pytest.approx((position + 1) / 2, abs=1e-5)


def test_value_noise_passes_through_its_knots() -> None:
    knots = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4)).astype(np.float32)
    canvas = Canvas(2, 64)
    canvas.x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 1, -1)
    noise = canvas.noise(knots)
    assert np.abs(noise[:, ::21, ::21] - knots).max() < 1e-4
    assert np.abs(noise).max() <= np.abs(knots).max() + 1e-6


def test_hsv_corners() -> None:
    def column(*values: float) -> np.ndarray:
        return np.array(values, np.float32).reshape(-1, 1, 1)

    colours = hsv(column(0, 1 / 3, 2 / 3, 0.25), column(1, 1, 1, 0), column(1, 1, 0.5, 0.7))
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 0.5], [0.7, 0.7, 0.7]]
    assert np.allclose(colours[:, :, 0, 0], expected, atol=1e-6)


def test_distance_fields_against_known_distances() -> None:
    x, y = (np.array(value, np.float32) for value in ([0.0, 3.0, 1.0], [0.0, 4.0, 0.0]))
    assert np.allclose(field.disc(x, y, 2.0), [-2, 3, -1])
    assert np.allclose(field.box(x, y, 2.0, 1.0), [-1, 3, -1])
    assert np.allclose(field.half_plane(x, y, (0.0, 1.0), (-1.0, 1.0)), [-1, 3, -1])
    assert np.allclose(field.segment(x, y, 3.0, 0.0, 0.5), [-0.5, 3.5, -0.5])
    turned = field.rotate(x, y, np.float32(np.pi / 2))
    assert np.allclose(turned, [[0, 4, 0], [0, -3, -1]], atol=1e-6)


def test_parallelogram_and_triangle_agree_with_other_shapes() -> None:
    grid = np.linspace(-1, 1, 41, dtype=np.float32)
    x, y = grid.reshape(1, -1), grid.reshape(-1, 1)
    parallelogram = field.parallelogram(x, y, (0.5, 0.0), (0.0, 0.25))
    assert np.allclose(parallelogram, field.box(x, y, 0.5, 0.25), atol=1e-6)
    halves = [
        field.triangle(x, y, (-0.5, -0.25), (0.5, -0.25), (0.5, 0.25)),
        field.triangle(x, y, (-0.5, -0.25), (0.5, 0.25), (-0.5, 0.25)),
    ]
    assert np.array_equal(np.minimum(*halves) < 1e-6, parallelogram < 1e-6)


def test_fold_is_invariant_under_its_own_turns() -> None:
    x, y = (np.random.default_rng(k).normal(size=50).astype(np.float32) for k in (0, 1))
    along, across, number = field.fold(x, y, 6)
    turned = field.fold(*field.rotate(x, y, np.float32(np.pi / 3)), 6)
    assert np.allclose(turned[0], along, atol=1e-5)
    assert np.allclose(turned[1], across, atol=1e-5)
    assert set(np.unique(number)) <= set(range(6))
    assert np.allclose(along**2 + across**2, x**2 + y**2, atol=1e-4)
