import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hqdm_bench.catalogue import Protocol
from hqdm_bench.common.files import sha256_of
from hqdm_bench.evaluate.extractors import Features, InceptionExtractor
from hqdm_bench.evaluate.inception import convert_inception
from hqdm_bench.evaluate.stand_in import write_stand_in_inception

METRICS = Path(__file__).parents[1] / "data" / "metrics"


@pytest.fixture(scope="session")
def arrays() -> dict[str, torch.Tensor]:
    """Stored feature arrays; see tests/data/metrics/expected.json."""
    with np.load(METRICS / "features.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file}


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """What the ADM evaluator, torch-fidelity, clean-fid and float64 arithmetic give for them."""
    return json.loads((METRICS / "expected.json").read_text())


class Toy:
    """An extractor in no time: random projections of the pixels."""

    name = "toy"
    sha256 = "f" * 64

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self._maps = [torch.randn(48, d, generator=random).double() for d in (6, 5, 4)]

    def __call__(self, images: torch.Tensor) -> Features:
        pixels = images.permute(0, 3, 1, 2).double() / 255
        small = torch.nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1)
        # In float64 first, so that features do not depend on the batch by a rounding.
        return Features(*((small @ part).float() for part in self._maps))


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="session")
def toy_protocol() -> Protocol:
    """A reference of 20 images, 6 of them for precision and recall."""
    return Protocol(
        name="toy",
        steps=20,
        eta=0.0,
        guidance=1.0,
        labels="none",
        order="shuffled",
        rounding="nearest",
        images=24,
        batch=8,
        shards=1,
        seed=0,
        reference="pictures",
        reference_images=20,
        pr_reference_images=6,
        extractor="toy",
        is_split=24,
    )


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random Inception weights in the published format."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    write_stand_in_inception(path, seed=1, legacy=True)
    return path


@pytest.fixture(scope="session")
def inception(inception_weights: Path) -> InceptionExtractor:
    target = inception_weights.with_name("extractor.safetensors")
    convert_inception(inception_weights, sha256_of(inception_weights), target)
    return InceptionExtractor(target)
