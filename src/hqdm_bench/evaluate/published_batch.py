"""Published reference batches of the ADM evaluator: an .npz with images and their moments.

Used keys: ``arr_0`` (n, H, W, 3) uint8 images; ``mu``, ``sigma`` moments of the pooled features;
``mu_s``, ``sigma_s`` of the spatial ones, in the order H, W, C. Types of the moments differ from
file to file. Other keys are ignored.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hqdm_bench.catalogue import Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import require_file
from hqdm_bench.evaluate.feature_types import Extractor
from hqdm_bench.evaluate.features import feature_stream
from hqdm_bench.evaluate.frechet import frechet_distance
from hqdm_bench.evaluate.moments import Gaussian
from hqdm_bench.evaluate.reference import MomentsOfFeatures, Reference
from hqdm_bench.sample import ImageArchive, open_archive

__all__ = ["Agreement", "reference_from_batch", "stored_gaussian"]

KEYS = ("arr_0", "mu", "sigma", "mu_s", "sigma_s")
SYMMETRY = 1e-6  # largest difference of a covariance from its transpose, relative to its entries


class Agreement(NamedTuple):
    """Frechet distances between a batch's own images and the moments stored with them.

    They are the sampling error of the images, a few units for 10 000 of them, if features are
    extracted as the publisher did; a spatial part in another order makes ``sfid`` hundreds.
    """

    fid: float
    sfid: float


def reference_from_batch(
    path: Path, sha256: str, protocol: Protocol, extractor: Extractor, resolution: int
) -> tuple[Reference, Agreement]:
    """Reference with the moments of a published batch.

    The first ``protocol.pr_reference_images`` images go through our extractor for precision and
    recall, one batch in memory at a time.

    Args:
        path: the ``.npz``.
        sha256: its digest.
        protocol: name of the reference and number of images for precision and recall.
        extractor: the network the moments were made with.
        resolution: side of the images the model draws.

    Raises:
        BenchError: a missing or damaged file, missing keys, moments of other dimensions than the
            extractor's features or that are none, images of another size, or too few of them.
    """
    wanted = protocol.pr_reference_images
    archive = _open_batch(path)
    count, size = len(archive), (archive.shape or ())[1:]
    if size != (resolution, resolution, 3):
        raise BenchError(
            f"{path}: arr_0 holds images of shape {size}, the model draws "
            f"{resolution} x {resolution} x 3"
        )
    if count < wanted:
        raise BenchError(
            f"{path} holds {count} images, protocol '{protocol.name}' asks for {wanted} for "
            "precision and recall"
        )
    probe = extractor(torch.zeros(1, *size, dtype=torch.uint8))
    stored = stored_gaussian(archive, "mu", "sigma", probe.pool.shape[1])
    stored_spatial = stored_gaussian(archive, "mu_s", "sigma_s", probe.spatial.shape[1])
    moments = MomentsOfFeatures()
    kept: list[Tensor] = []
    batches = archive.images(protocol.batch, wanted)
    for features in feature_stream(
        batches, extractor, path.name, wanted, hashlib.sha256(), protocol.clean_fid
    ):
        moments.update(features)
        kept.append(features.pool)
    agreement = Agreement(
        frechet_distance(moments.pool.result(), stored),
        frechet_distance(moments.spatial.result(), stored_spatial),
    )
    reference = Reference(
        protocol.reference,
        None,
        stored,
        stored_spatial,
        torch.cat(kept),
        extractor.name,
        extractor.sha256,
        sha256,
        moments.clean_gaussian,
    )
    return reference, agreement


def _open_batch(path: Path) -> ImageArchive:
    archive = open_archive(require_file(path))
    missing = [key for key in KEYS if key not in archive.keys]
    if missing:
        raise BenchError(
            f"{path} is no reference batch of the ADM evaluator: it has no {', '.join(missing)}"
        )
    return archive


def stored_gaussian(
    archive: ImageArchive, mean_key: str, covariance_key: str, dimensions: int
) -> Gaussian:
    """Moments stored in an archive, in double precision.

    Args:
        archive: that holds both keys.
        mean_key: ``mu`` or ``mu_s``.
        covariance_key: ``sigma`` or ``sigma_s``.
        dimensions: of the extractor's features.

    Raises:
        BenchError: a damaged file, or moments of another shape or that are none.
    """
    shapes = {mean_key: (dimensions,), covariance_key: (dimensions, dimensions)}
    found: list[Tensor] = []
    for key, shape in shapes.items():
        array = archive.array(key)
        if array.shape != shape or array.dtype.kind != "f":
            raise BenchError(
                f"{archive.path}: {key} is {array.dtype} of shape {array.shape}; features of this "
                f"extractor need floats of shape {shape}"
            )
        if not np.isfinite(array).all():
            raise BenchError(f"{archive.path}: {key} holds values that are not finite")
        found.append(torch.from_numpy(array.astype(np.float64)))
    mean, covariance = found
    if (covariance - covariance.T).abs().max() > SYMMETRY * covariance.abs().max():
        raise BenchError(
            f"{archive.path}: {covariance_key} is not symmetric, so it is no covariance"
        )
    return Gaussian(mean, covariance)
