import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.sample import ImageNoise, to_uint8

SHAPE = (3, 4, 4)


def test_noise_of_an_image_ignores_its_batch():
    together = ImageNoise(0, range(6), SHAPE)
    draws = [together.draw() for _ in range(3)]
    for i in range(6):
        alone = ImageNoise(0, [i], SHAPE)
        for draw in draws:
            assert torch.equal(alone.draw()[0], draw[i])


def test_noise_differs_between_images_draws_and_seeds_and_is_standard_normal():
    noise = ImageNoise(0, range(400), SHAPE)
    first, second = noise.draw(), noise.draw()
    other = ImageNoise(1, range(400), SHAPE).draw()
    for a, b in ((first, second), (first, other), (first[:-1], first[1:])):
        assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 0.04
    assert first.mean().abs() < 0.04
    assert abs(first.std() - 1) < 0.03


def test_known_grey_levels():
    image = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5)
    assert to_uint8(image, "floor").flatten().tolist() == [0, 0, 127, 255, 255]
    assert to_uint8(image, "nearest").flatten().tolist() == [0, 0, 128, 255, 255]


def test_floor_lies_half_a_level_below_nearest_on_average():
    image = torch.linspace(-1, 1, 300_000).view(1, 3, 100, 1000)
    exact = (image.permute(0, 2, 3, 1).double() + 1) * 127.5
    bias = {name: (to_uint8(image, name) - exact).mean().item() for name in ("nearest", "floor")}
    assert bias["nearest"] == pytest.approx(0, abs=1e-3)
    assert bias["floor"] == pytest.approx(-0.5, abs=1e-2)


def test_bytes_survive_the_round_trip_and_come_out_channels_last():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    levels[:, 1] = levels[:, 1].flip(-1)
    back = to_uint8(levels.float() / 127.5 - 1, "nearest")
    assert back.shape == (2, 16, 16, 3)
    assert back.is_contiguous()
    assert torch.equal(back, levels.permute(0, 2, 3, 1))


def test_refusals():
    with pytest.raises(BenchError, match="nearest or floor"):
        to_uint8(torch.zeros(1, 3, 2, 2), "truncate")
    with pytest.raises(BenchError, match="diverged"):
        to_uint8(torch.full((1, 3, 2, 2), float("nan")), "nearest")
