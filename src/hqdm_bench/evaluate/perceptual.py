"""LPIPS, the perceptual distance of image pairs, where its weights are at hand."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import sha256_of
from hqdm_bench.evaluate.exact import exact_float32

__all__ = ["LINEAR_FILE", "VGG_FILE", "PerceptualDistance"]

# Published names: torchvision's VGG16, whose digest begins as it says, and LPIPS 0.1's layers.
VGG_FILE, VGG_DIGEST = "vgg16-397923af.pth", "397923af"
LINEAR_FILE = "vgg.pth"
# Convolutions of each block of VGG16, by their place in torchvision's list of layers.
BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
WIDTHS = (64, 128, 256, 512, 512)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # on images in [-1, 1]
EPSILON = 1e-10
BATCH = 16  # pairs per forward pass


class PerceptualDistance:
    """LPIPS 0.1 with VGG16 (Zhang et al. 2018, Eq. 1), on images as they are, without a resize.

    Args:
        folder: that holds `VGG_FILE` and `LINEAR_FILE`; nothing is downloaded.
        device: where it runs, in float32 without TF32; the CPU if None.
        vgg_digest: first digits that the sha256 of `VGG_FILE` must have.

    Attributes:
        sha256: digest of both files, by name.

    Raises:
        BenchError: a file is missing, is another one, or does not hold these weights.
    """

    def __init__(
        self, folder: Path, device: torch.device | None = None, vgg_digest: str = VGG_DIGEST
    ) -> None:
        self._device = device or torch.device("cpu")
        paths = {name: folder / name for name in (VGG_FILE, LINEAR_FILE)}
        for path in paths.values():
            if not path.is_file():
                raise BenchError(
                    f"{path} does not exist; LPIPS needs torchvision's {VGG_FILE} and LPIPS 0.1's "
                    f"{LINEAR_FILE} in one folder"
                )
        self.sha256 = {name: sha256_of(path) for name, path in paths.items()}
        if not self.sha256[VGG_FILE].startswith(vgg_digest):
            raise BenchError(
                f"{paths[VGG_FILE]} has sha256 {self.sha256[VGG_FILE]}, which does not begin with "
                f"{vgg_digest}; get it again"
            )
        vgg, linear = (_state(path) for path in paths.values())
        self._convolutions = {
            place: tuple(
                self._take(vgg, f"features.{place}.{part}", paths[VGG_FILE])
                for part in ("weight", "bias")
            )
            for block in BLOCKS
            for place in block
        }
        self._weights = [
            self._take(linear, f"lin{number}.model.1.weight", paths[LINEAR_FILE], (1, width, 1, 1))
            for number, width in enumerate(WIDTHS)
        ]

    def _take(
        self, state: Mapping[str, Any], key: str, path: Path, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        value = state.get(key)
        if not isinstance(value, Tensor) or (shape and tuple(value.shape) != shape):
            found = tuple(value.shape) if isinstance(value, Tensor) else "missing"
            raise BenchError(f"{path}: {key} is {found}; it does not hold the weights of LPIPS")
        return value.float().to(self._device)

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(n,) float64 distances of (n, H, W, 3) uint8 images; 0 for equal ones."""
        with exact_float32():
            parts = [
                self._distances(*(self._normalise(images) for images in pair))
                for pair in zip(a.split(BATCH), b.split(BATCH), strict=True)
            ]
        return torch.cat(parts).double().cpu()

    def _normalise(self, images: Tensor) -> Tensor:
        x = images.to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
        shift, scale = (x.new_tensor(values).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        return (x - shift) / scale

    def _distances(self, x: Tensor, y: Tensor) -> Tensor:
        total = x.new_zeros(len(x))
        for weights, one, other in zip(
            self._weights, self._features(x), self._features(y), strict=True
        ):
            difference = (_unit(one) - _unit(other)).square()
            total += (difference * weights).sum(1).mean((1, 2))
        return total

    def _features(self, x: Tensor) -> Iterator[Tensor]:
        """Activations behind the last ReLU of each block."""
        for number, block in enumerate(BLOCKS):
            if number:
                x = max_pool2d(x, 2)
            for place in block:
                weight, bias = self._convolutions[place]
                x = conv2d(x, weight, bias, padding=1).relu_()
            yield x


def _unit(features: Tensor) -> Tensor:
    """Features with channel vectors of length 1."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + EPSILON)


def _state(path: Path) -> Mapping[str, Any]:
    """A state dict; only tensors are unpickled."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged part of the file led to
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise BenchError(f"{path} is not a state dict of tensors ({reason[0]})") from error
    if not isinstance(state, Mapping):
        raise BenchError(f"{path} holds a {type(state).__name__}, expected a state dict")
    return state
