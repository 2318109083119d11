"""The ``inception`` extractor: published weights in, features of the ADM evaluator out."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import sha256_of
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.evaluate.exact import exact_float32
from hqdm_bench.evaluate.feature_types import Features

__all__ = [
    "PUBLISHED_SHA256",
    "InceptionExtractor",
    "convert_inception",
    "read_inception_weights",
]

NAME = "inception"
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
LARGEST_BATCH = 64  # images per forward pass, as in the ADM evaluator


class InceptionExtractor:
    """Inception of 2015-12-05 as the ADM evaluator uses it; always float32, never TF32.

    Args:
        path: what `convert_inception` wrote.
        device: where it runs.

    Attributes:
        sha256: digest of the published weights file, so that numbers can be compared with others'.

    Raises:
        BenchError: the file is missing or holds something else.
    """

    name = NAME

    def __init__(self, path: Path, device: torch.device | None = None) -> None:
        tensors, header = read_tensors(path)
        if header.get("name") != NAME or "source_sha256" not in header:
            raise BenchError(
                f"{path} does not hold Inception weights; delete it, `snakemake {path}` makes it"
            )
        _require_structure(tensors, path)
        # Imported here because it takes seconds and most verbs do without it.
        from hqdm_bench.evaluate.inception_network import InceptionNetwork

        self._device = device or torch.device("cpu")
        self._network = InceptionNetwork(tensors).to(self._device)
        self.sha256: str = header["source_sha256"]

    @classmethod
    def of_file(cls, path: Path, sha256: str, device: torch.device | None = None) -> Self:
        """The extractor of published weights, or of what `convert_inception` made of them.

        Args:
            path: ``.pth`` or ``.safetensors``.
            sha256: digest the published file must have.
            device: where it runs.

        Raises:
            BenchError: the file is missing, holds something else, or comes from another file.
        """
        if path.suffix != ".safetensors":
            with tempfile.TemporaryDirectory() as folder:
                converted = Path(folder) / "inception.safetensors"
                convert_inception(path, sha256, converted)
                return cls(converted, device)
        found = cls(path, device)
        if found.sha256 != sha256:
            raise BenchError(
                f"{path} was made from weights of sha256 {found.sha256}, expected {sha256}; delete "
                "it and make it from the published file"
            )
        return found

    def __call__(self, images: Tensor) -> Features:
        """Features of (n, H, W, 3) uint8 images.

        Pool is (n, 2048), spatial (n, 2023), logits (n, 1008), see `InceptionNetwork`. At most 64
        images pass at a time. Neither their number nor their neighbours change a feature by more
        than float32 rounding.
        """
        with exact_float32():
            parts = [
                self._network.outputs(batch.to(self._device))
                for batch in images.split(LARGEST_BATCH)
            ]
        return Features(*(torch.cat(part).float().cpu() for part in zip(*parts, strict=True)))

    def pool_of_resized(self, images: Tensor) -> Tensor:
        """(n, 2048) pooled features of (n, 3, 299, 299) float32 images in 0..255."""
        with exact_float32():
            parts = [
                self._network.pool_of_resized(batch.to(self._device))
                for batch in images.split(LARGEST_BATCH)
            ]
        return torch.cat(parts).float().cpu()


def read_inception_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read the published state dict; only tensors are unpickled.

    Args:
        path: the ``.pth`` file.
        sha256: digest it must have.

    Raises:
        BenchError: the file is missing, is another one, or does not hold this network's weights.
    """
    found = sha256_of(path)
    if found != sha256:
        raise BenchError(
            f"{path} has sha256 {found}, expected {sha256}; delete it and run "
            f"`hqdm-bench fetch {NAME}`"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged part of the file led to
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise BenchError(f"{path} is not a state dict of tensors ({reason[0]})") from error
    _require_structure(state, path)
    return dict(state)


def _require_structure(state: Any, path: Path) -> None:
    from hqdm_bench.evaluate.inception_network import inception_shapes

    if not isinstance(state, Mapping):
        raise BenchError(f"{path} holds a {type(state).__name__}, expected a state dict")
    wanted = inception_shapes()
    for title, names in (
        ("lacks", sorted(wanted.keys() - state.keys())),
        ("has unknown", sorted(map(str, state.keys() - wanted.keys()))),
    ):
        if names:
            raise BenchError(
                f"{path} does not fit the Inception network of {len(wanted)} tensors: it {title} "
                f"{len(names)}, the first is {names[0]}"
            )
    for name, (dtype, shape) in wanted.items():
        entry = state[name]
        if not isinstance(entry, Tensor) or entry.dtype != dtype or entry.shape != shape:
            found = (
                f"{entry.dtype} {tuple(entry.shape)}"
                if isinstance(entry, Tensor)
                else type(entry).__name__
            )
            raise BenchError(
                f"{path} does not fit the Inception network: {name} is {found}, expected {dtype} "
                f"{tuple(shape)}"
            )


def convert_inception(source: Path, sha256: str, target: Path) -> None:
    """Turn the published weights into safetensors that remember the digest of their source.

    Raises:
        BenchError: see `read_inception_weights`.
    """
    write_tensors(
        target, read_inception_weights(source, sha256), {"name": NAME, "source_sha256": sha256}
    )
