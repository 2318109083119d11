"""Class label of each image."""

import torch
from torch import Tensor

from hqdm_bench.catalogue import Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import derive_seed, generator

__all__ = ["NO_LABEL", "image_labels"]

NO_LABEL = -1  # what the sample files hold for an image of an unconditional model


def image_labels(protocol: Protocol, classes: int | None) -> Tensor:
    """Labels of all images of a protocol; label i is a pure function of (protocol, i).

    ``balanced`` gives every class the same number of images (up to one when the classes do not
    divide it), ``iid`` draws each label on its own, ``none`` is for unconditional models. Order
    ``sorted`` puts equal labels together, which makes a score over contiguous splits collapse (5000
    images at 50 a class hold 100 classes only); ``shuffled`` applies the permutation named
    ``label-order`` of the protocol's seed.

    Args:
        protocol: policy, order, number of images and seed.
        classes: number of classes without the null class; None for an unconditional model.

    Returns:
        (images,) int64; `NO_LABEL` throughout for policy ``none``.

    Raises:
        BenchError: the policy does not fit the model.
    """
    if (protocol.labels == "none") != (classes is None):
        kind = "unconditional" if classes is None else "class-conditional"
        raise BenchError(
            f"protocol '{protocol.name}' has labels '{protocol.labels}' but the model is {kind}; "
            "use labels none for unconditional models, balanced or iid for the others"
        )
    if classes is None:
        return torch.full((protocol.images,), NO_LABEL)
    if protocol.labels == "iid":
        draws = [derive_seed("label", protocol.seed, i) % classes for i in range(protocol.images)]
        labels = torch.tensor(draws)
        return labels.sort().values if protocol.order == "sorted" else labels
    labels = torch.arange(protocol.images) * classes // protocol.images
    if protocol.order == "sorted":
        return labels
    random = generator("label-order", protocol.seed)
    return labels[torch.randperm(protocol.images, generator=random)]
