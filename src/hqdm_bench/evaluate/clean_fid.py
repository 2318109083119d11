"""Features of images resized as clean-fid does: a second opinion on FID.

The ADM evaluator's network resizes by TensorFlow 1's bilinear interpolation without smoothing,
which lets high frequencies through as artefacts (Parmar et al. 2022). clean-fid resizes each image
by Pillow's bicubic filter before the network, on floats, channel by channel. The network is the
same, so the two distances differ in nothing else.
"""

import numpy as np
import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.feature_types import Extractor
from hqdm_bench.evaluate.inception import InceptionExtractor

__all__ = ["clean_pool", "resize_as_clean_fid"]

SIDE = 299


def clean_pool(extractor: Extractor, images: Tensor) -> Tensor:
    """(n, 2048) pooled features of (n, H, W, 3) uint8 images resized as clean-fid does.

    Raises:
        BenchError: the extractor is not Inception, of which alone clean-fid speaks.
    """
    if not isinstance(extractor, InceptionExtractor):
        raise BenchError(
            f"clean-fid is defined on Inception features, not on '{extractor.name}'; set "
            "clean_fid: false in config/protocols.yaml"
        )
    return extractor.pool_of_resized(resize_as_clean_fid(images))


def resize_as_clean_fid(images: Tensor) -> Tensor:
    """(n, 3, 299, 299) float32 in 0..255 of (n, H, W, 3) uint8 images, by clean-fid's own code."""
    # Imported here: one protocol field in many asks for it.
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    resized = np.stack([resize(image) for image in images.cpu().numpy()])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous()
