"""Reference side of the metrics: features of real images."""

from collections.abc import Iterable

from torch import Tensor

from hqdm_bench.catalogue import Protocol
from hqdm_bench.evaluate.extractors import Extractor
from hqdm_bench.evaluate.features import FeatureSet, extract

__all__ = ["reference_features"]


def reference_features(
    batches: Iterable[Tensor], protocol: Protocol, extractor: Extractor
) -> FeatureSet:
    """Extract the features of a protocol's reference images.

    Args:
        batches: (n, H, W, 3) uint8 real images. Precision and recall use the first
            ``protocol.pr_reference_images`` of them, so the order must not be by class.
        protocol: name and number of the reference images.
        extractor: the network.

    Raises:
        BenchError: the source holds another number of images than the protocol says.
    """
    return extract(batches, extractor, protocol.reference, protocol.reference_images)
