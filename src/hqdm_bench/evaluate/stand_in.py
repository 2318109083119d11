"""Evaluation artefacts with random content in the format of the published ones, to rehearse."""

import hashlib
import io
import tempfile
import zipfile
from pathlib import Path

import lmdb
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from hqdm_bench.common.files import atomic_path
from hqdm_bench.common.seeds import generator
from hqdm_bench.evaluate.feature_types import Extractor
from hqdm_bench.evaluate.moments import RunningMoments

__all__ = [
    "random_pictures",
    "stand_in_inception",
    "write_stand_in_batch",
    "write_stand_in_inception",
    "write_stand_in_lsun",
]

CELLS = 4  # random colours along a side of a picture, smoothly joined
BATCH = 64
LSUN_FOLDER = "church_outdoor_train_lmdb"
LSUN_DATE = (2015, 6, 10, 0, 0, 0)
LOCK_BYTES = 8192  # LMDB's lock file; what it says of its last users does not matter
MAP_BYTES = 2**30  # address space for the database while it is written


def stand_in_inception(seed: int) -> dict[str, Tensor]:
    """Random weights under all the names of the published Inception state dict.

    Activations keep their size from layer to layer, and every output reacts to every input.

    Args:
        seed: each tensor has a stream of its own.
    """
    # Imported here because it takes seconds, and the other stand-ins do without it.
    from hqdm_bench.evaluate.inception_network import inception_shapes

    return {
        name: _weight(name, dtype, shape, seed)
        for name, (dtype, shape) in inception_shapes().items()
    }


def _weight(name: str, dtype: torch.dtype, shape: torch.Size, seed: int) -> Tensor:
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)  # batches seen by a normalisation
    source = generator("stand-in", "inception", name, seed)
    if len(shape) > 1:
        gain = 2**0.5 if len(shape) == 4 else 1.0  # convolutions are followed by a ReLU
        return torch.randn(shape, generator=source) * gain * shape[1:].numel() ** -0.5
    if name.endswith(("bn.weight", "running_var")):
        return torch.empty(shape).uniform_(0.8, 1.25, generator=source)
    return torch.empty(shape).uniform_(-0.1, 0.1, generator=source)


def write_stand_in_inception(path: Path, seed: int, legacy: bool = False) -> None:
    """Write random Inception weights as a plain state dict.

    Args:
        path: the ``.pth``.
        seed: of the weights. Equal arguments give equal bytes, except for ``legacy``.
        legacy: torch's format before 1.6, that of the published file.
    """
    state = stand_in_inception(seed)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        # An open file, not its name: torch would write the name of the temporary file into it.
        torch.save(state, handle, _use_new_zipfile_serialization=not legacy)


def random_pictures(numbers: range, height: int, width: int, seed: int) -> Tensor:
    """(n, height, width, 3) uint8 smooth random pictures; picture i depends on (seed, i) only."""
    coarse = [
        torch.rand(3, CELLS, CELLS, generator=generator("stand-in", "picture", seed, number))
        for number in numbers
    ]
    smooth = interpolate(torch.stack(coarse), (height, width), mode="bicubic", align_corners=False)
    return (smooth * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def write_stand_in_batch(
    path: Path, extractor: Extractor, images: int, resolution: int, seed: int
) -> None:
    """Write random pictures and their moments as the ADM evaluator's reference batches hold them.

    The keys and types are those of the ImageNet 256 batch, with its further pair that is not used.

    Args:
        path: the ``.npz``.
        extractor: the moments are of its features.
        images: how many, at least two.
        resolution: side of the pictures.
        seed: of the pictures.
    """
    pool, spatial = RunningMoments(), RunningMoments()
    pictures = random_pictures(range(images), resolution, resolution, seed)
    for batch in pictures.split(BATCH):
        features = extractor(batch)
        pool.update(features.pool)
        spatial.update(features.spatial)
    own, own_spatial = pool.result(), spatial.result()
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            arr_0=pictures.numpy(),
            mu=own.mean.numpy(),
            sigma=own.covariance.numpy(),
            mu_s=own_spatial.mean.float().numpy(),
            sigma_s=own_spatial.covariance.numpy(),
            mu_clip=np.zeros(768, np.float32),
            sigma_clip=np.eye(768),
        )


def write_stand_in_lsun(path: Path, images: int, seed: int, resolution: int = 256) -> None:
    """Write random pictures as LSUN publishes its images: a zipped LMDB of WebP files.

    As there, the shorter side is ``resolution``, the longer one varies, and keys are hashes.

    Args:
        path: the ``.zip``.
        images: how many.
        seed: of the pictures.
        resolution: shorter side of the pictures.
    """
    with tempfile.TemporaryDirectory() as folder:
        with (
            lmdb.open(folder, map_size=MAP_BYTES, lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            for number in range(images):
                key = hashlib.sha1(f"{seed}/{number}".encode()).hexdigest().encode()
                transaction.put(key, _encoded(number, seed, resolution))
        members = {"data.mdb": (Path(folder) / "data.mdb").read_bytes()}
    members["lock.mdb"] = bytes(LOCK_BYTES)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(f"{LSUN_FOLDER}/{name}", LSUN_DATE)
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)


def _encoded(number: int, seed: int, resolution: int) -> bytes:
    """One picture as WebP; every third is higher than wide, the first is square."""
    longer = resolution + (number * 37) % (resolution // 2)
    sides = (longer, resolution) if number % 3 == 2 else (resolution, longer)
    picture = random_pictures(range(number, number + 1), *sides, seed)[0]
    buffer = io.BytesIO()
    Image.fromarray(picture.numpy()).save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
