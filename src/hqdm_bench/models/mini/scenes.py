"""Procedural scenes: the data that the embedded models are trained on and measured against.

Twelve kinds of small pictures, drawn from signed distance functions with random colours, poses,
sizes and light. An image is a pure function of (stream, seed, class, index): neither the batch it
is drawn in nor the other classes of the set change it, and every resolution shows the same scene.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.models.mini import scene_buildings, scene_nature, scene_objects
from hqdm_bench.models.mini.scene_canvas import Array, Canvas, Draws

__all__ = ["SCENES", "STREAMS", "SceneSet", "render", "to_tensor"]

SCENES: dict[str, Callable[[Canvas, Draws], None]] = {
    "ball": scene_objects.ball,
    "cube": scene_objects.cube,
    "checker": scene_objects.checker,
    "stripes": scene_objects.stripes,
    "ring": scene_objects.ring,
    "flower": scene_nature.flower,
    "sunset": scene_nature.sunset,
    "tree": scene_nature.tree,
    "star": scene_objects.star,
    "house": scene_buildings.house,
    "bedroom": scene_buildings.bedroom,
    "church": scene_buildings.church,
}
STREAMS = ("train", "validation", "reference")
RESOLUTIONS = (16, 256)  # smallest, largest

DRAWS = 192  # uniform numbers an image owns; scenes use up to about 150
PIXELS_AT_ONCE = 1 << 17  # images are drawn in groups that stay in the processor's cache


def render(
    name: str, seed: int, indices: Sequence[int], resolution: int, stream: str = "train"
) -> NDArray[np.uint8]:
    """Draw images of one class.

    Args:
        name: class, one of ``SCENES``.
        seed: seed of the whole set.
        indices: numbers of the images.
        resolution: side R in pixels.
        stream: one of ``STREAMS``; images of different streams are independent.

    Returns:
        (N, R, R, 3) uint8.
    """
    images = np.empty((len(indices), resolution, resolution, 3), np.uint8)
    group = max(1, PIXELS_AT_ONCE // resolution**2)
    for start in range(0, len(indices), group):
        part = indices[start : start + group]
        images[start : start + len(part)] = _draw(name, seed, part, resolution, stream)
    return images


def _draw(
    name: str, seed: int, indices: Sequence[int], resolution: int, stream: str
) -> NDArray[np.uint8]:
    canvas = Canvas(len(indices), resolution)
    SCENES[name](canvas, Draws(_uniforms(name, seed, indices, stream)))
    pixels = np.floor(np.clip(canvas.image, 0, 1) * np.float32(255) + np.float32(0.5))
    return pixels.astype(np.uint8).transpose(0, 2, 3, 1)


def _uniforms(name: str, seed: int, indices: Sequence[int], stream: str) -> Array:
    """(N, DRAWS) numbers in [0, 1); row i is the image's own stream."""
    rows = [
        torch.rand(DRAWS, generator=generator("scenes", stream, seed, name, int(index)))
        for index in indices
    ]
    numbers: Array = torch.stack(rows).numpy()
    return numbers


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Bytes (N, R, R, 3) to float32 (N, 3, R, R) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


@dataclass(frozen=True)
class SceneSet:
    """An endless labelled set of scenes.

    Image ``i`` has label ``i mod len(classes)``, so every run of consecutive indices is balanced.

    Attributes:
        classes: names out of ``SCENES``; the label of an image is its class's place in this list.
        resolution: side in pixels, 16 to 256.
        seed: seed of the set.
        stream: "train", "validation" or "reference".

    Raises:
        BenchError: an unknown class or stream, a repeated class, or a resolution out of range.
    """

    classes: tuple[str, ...]
    resolution: int
    seed: int
    stream: str = "train"

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        unknown = [name for name in self.classes if name not in SCENES]
        if unknown or not self.classes:
            raise BenchError(
                f"unknown scene classes {unknown}; choose one or more of {', '.join(SCENES)}"
            )
        if len(set(self.classes)) != len(self.classes):
            raise BenchError(f"a scene class is listed twice in {list(self.classes)}")
        if self.stream not in STREAMS:
            raise BenchError(f"unknown scene stream {self.stream!r}; choose of {STREAMS}")
        low, high = RESOLUTIONS
        if not low <= self.resolution <= high:
            raise BenchError(f"scene resolution {self.resolution} is not in {low}..{high}")

    def labels(self, indices: Iterable[int]) -> Tensor:
        """Labels (N,) int64."""
        return torch.tensor([int(index) % len(self.classes) for index in indices])

    def images(self, indices: Iterable[int]) -> NDArray[np.uint8]:
        """Images (N, R, R, 3) uint8."""
        numbers = np.fromiter((int(index) for index in indices), np.int64)
        images = np.empty((len(numbers), self.resolution, self.resolution, 3), np.uint8)
        for label, name in enumerate(self.classes):
            chosen = np.flatnonzero(numbers % len(self.classes) == label)
            images[chosen] = render(
                name, self.seed, numbers[chosen].tolist(), self.resolution, self.stream
            )
        return images

    def tensors(self, indices: Iterable[int]) -> Tensor:
        """Images (N, 3, R, R) float32 in [-1, 1]."""
        return to_tensor(self.images(indices))
