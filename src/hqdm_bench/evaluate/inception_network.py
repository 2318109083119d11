"""The Inception network of the ADM evaluator, from torch-fidelity's blocks and forward pass.

torch-fidelity's own constructor unpickles a weights file, or downloads one, without a check. Here
the same modules are assembled empty and get tensors that were checked before.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import (
    BasicConv2d,
    FeatureExtractorInceptionV3,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE_1,
    InceptionE_2,
)

__all__ = ["InceptionNetwork", "inception_shapes"]

OUTPUTS = ("2048", "logits_unbiased")
# Blocks up to pool3, in the order in which the forward pass runs them.
TRUNK = (
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "MaxPool_1",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "MaxPool_2",
    *(
        f"Mixed_{name}"
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
    ),
    "AvgPool",
)
SPATIAL_CHANNELS = 7  # of 192, those the spatial Frechet distance is defined on


class InceptionNetwork(FeatureExtractorInceptionV3):
    """Inception of 2015-12-05 with the outputs of the three metrics' features.

    The graph of the ADM evaluator, as torch-fidelity 0.4.0 ports it: TensorFlow 1's bilinear resize
    to 299 pixels, then (x - 128) / 128.

    Args:
        weights: the 566 entries of the published state dict; taken as they are, not copied.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        FeatureExtractorBase.__init__(self, "inception", list(OUTPUTS))
        self.feature_extractor_internal_dtype = torch.float32
        with torch.device("meta"):  # no memory, no random numbers: every entry is assigned below
            for name, block in _blocks().items():
                self.add_module(name, block)
        self.load_state_dict(weights, strict=True, assign=True)
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def pool_of_resized(self, images: Tensor) -> Tensor:
        """pool3 (n, 2048) of (n, 3, 299, 299) float images in 0..255, without a further resize."""
        x = (images - 128) / 128
        for name in TRUNK:
            x = self.get_submodule(name)(x)
        return x.flatten(1)

    @torch.no_grad()
    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of (n, H, W, 3) uint8 images.

        Returns:
            pool3 (n, 2048); spatial (n, 2023), the first 7 channels of ``Mixed_6d.branch1x1``
            behind batch normalisation and ReLU (the ADM evaluator's ``mixed_6/conv``), 17 x 17
            positions flattened in the order H, W, C; class scores without bias (n, 1008).
        """
        spatial: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            spatial.append(output[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1))

        handle = self.Mixed_6d.branch1x1.register_forward_hook(keep)
        try:
            pool, logits = self(images.permute(0, 3, 1, 2))
        finally:
            handle.remove()
        return pool, spatial[0], logits


def _blocks() -> dict[str, nn.Module]:
    """The modules that torch-fidelity's forward pass runs, under the names of the weights."""
    return {
        "Conv2d_1a_3x3": BasicConv2d(3, 32, kernel_size=3, stride=2),
        "Conv2d_2a_3x3": BasicConv2d(32, 32, kernel_size=3),
        "Conv2d_2b_3x3": BasicConv2d(32, 64, kernel_size=3, padding=1),
        "MaxPool_1": nn.MaxPool2d(3, stride=2),
        "Conv2d_3b_1x1": BasicConv2d(64, 80, kernel_size=1),
        "Conv2d_4a_3x3": BasicConv2d(80, 192, kernel_size=3),
        "MaxPool_2": nn.MaxPool2d(3, stride=2),
        "Mixed_5b": InceptionA(192, 32),
        "Mixed_5c": InceptionA(256, 64),
        "Mixed_5d": InceptionA(288, 64),
        "Mixed_6a": InceptionB(288),
        "Mixed_6b": InceptionC(768, 128),
        "Mixed_6c": InceptionC(768, 160),
        "Mixed_6d": InceptionC(768, 160),
        "Mixed_6e": InceptionC(768, 192),
        "Mixed_7a": InceptionD(768),
        "Mixed_7b": InceptionE_1(1280),
        "Mixed_7c": InceptionE_2(2048),
        "AvgPool": nn.AdaptiveAvgPool2d(1),
        "fc": nn.Linear(2048, 1008),
    }


def inception_shapes() -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Type and shape of every entry of the published state dict, by name."""
    with torch.device("meta"):
        state = nn.ModuleDict(_blocks()).state_dict()
    return {name: (entry.dtype, entry.shape) for name, entry in state.items()}
